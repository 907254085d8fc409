/**
 * The command line an endpoint offers, as plain JSON. The daemon hands the whole list to the CLI, so the
 * CLI knows every command of exactly the node it talks to and contains none itself.
 */
import type { Properties, Schema } from '#base/schema/schema.ts'
import type { CliHints, Endpoint, Follow, Method } from './endpoint.ts'

export interface CommandOption {
  readonly type: Schema['type']
  readonly description?: string
  readonly required: boolean
  readonly enum?: readonly string[]
  readonly default?: string | number | boolean
  /** May be given several times. */
  readonly multiple: boolean
  /** Never on a command line, where every user of the machine can read it. */
  readonly isSecret: boolean
  /** `false`: taken, but nobody needs to read of it before they look for it. */
  readonly isListed?: false
  /** `--scsi0 … --scsi30` stand as one line in the help: this is the first, of so many. */
  readonly family?: { readonly name: string; readonly count: number }
}

export interface Command {
  readonly words: readonly string[]
  readonly method: Method
  readonly path: string
  readonly description: string
  readonly positional: readonly string[]
  readonly options: Readonly<Record<string, CommandOption>>
  readonly columns?: readonly string[]
  readonly id?: string
  readonly examples: readonly string[]
  readonly destroys?: string
  readonly destroysWhen?: string
  readonly dryRun?: { readonly columns: readonly string[]; readonly id: string }
  readonly raw?: string
  readonly isViewerFile?: true
  readonly saves?: { readonly from: string; readonly to: string }
  readonly defaults?: Readonly<Record<string, string>>
  readonly chooses?: { readonly option: string; readonly prefix: string }
  readonly proves?: string
  /** Options that name a file whose text is sent. */
  readonly files?: readonly string[]
  readonly follow?: Follow
  readonly terminal?: string
  /** Returns a UPID: the CLI waits for it. */
  readonly isTask: boolean
  readonly isUpload: boolean
}

/** Not a parameter: the option of commands that can say what they would do. */
export const dryRun = 'dry-run'
const dryRunOption: CommandOption = {
  type: 'boolean',
  description: 'Say what would be done, and do nothing.',
  required: false,
  multiple: false,
  isSecret: false,
}

const saveOption: CommandOption = {
  type: 'string',
  description: 'File of this machine to write it to, or - for standard output; else its name, here.',
  required: false,
  multiple: false,
  isSecret: false,
}

/** Not a parameter: the option of commands that write a file here. */
export const replacing = 'force'
const replacingOption: CommandOption = {
  type: 'boolean',
  description: 'Replace a file of this machine that is there.',
  required: false,
  multiple: false,
  isSecret: false,
}

/** What `GET /hako/commands` returns. */
export interface CommandList {
  readonly node: string
  readonly version: string
  readonly commands: readonly Command[]
}

export function commandsOf<Call>(endpoints: readonly Endpoint<Call>[]): Command[] {
  return endpoints.flatMap((endpoint) => (endpoint.cli ? [commandOf(endpoint, endpoint.cli)] : []))
}

/** Those whose own words the given ones begin with. */
export function commandsMeantBy(commands: readonly Command[], words: readonly string[]): Command[] {
  return commands.filter(({ words: own }) => own.every((word, at) => words[at] === word))
}

function commandOf<Call>(endpoint: Endpoint<Call>, cli: CliHints): Command {
  const { method, path, description, params, returns } = endpoint
  return {
    words: cli.command,
    method,
    path,
    description,
    positional: cli.positional ?? [],
    options: {
      ...optionsOf(params, cli.unlisted),
      ...(cli.dryRun ? { [dryRun]: dryRunOption } : {}),
      ...(cli.saves ? { [cli.saves.to]: saveOption, [replacing]: replacingOption } : {}),
    },
    ...(cli.columns ? { columns: cli.columns } : {}),
    ...(cli.id === undefined ? {} : { id: cli.id }),
    examples: cli.examples ?? [],
    ...(cli.destroys === undefined ? {} : { destroys: cli.destroys }),
    ...(cli.dryRun ? { dryRun: cli.dryRun } : {}),
    ...(cli.terminal === undefined ? {} : { terminal: cli.terminal }),
    ...(cli.follow ? { follow: cli.follow } : {}),
    ...(cli.destroysWhen === undefined ? {} : { destroysWhen: cli.destroysWhen }),
    ...(cli.raw === undefined ? {} : { raw: cli.raw }),
    ...(cli.saves ? { saves: cli.saves } : {}),
    ...(cli.isViewerFile === true ? { isViewerFile: true as const } : {}),
    ...(cli.defaults ? { defaults: cli.defaults } : {}),
    ...(cli.chooses ? { chooses: cli.chooses } : {}),
    ...(cli.proves === undefined ? {} : { proves: cli.proves }),
    ...(cli.files ? { files: cli.files } : {}),
    isTask: isUpid(returns),
    isUpload: endpoint.isUpload ?? false,
  }
}

/** A method whose `data` is a task: its schema is the shared one from `base/schema/standard.ts`. */
function isUpid(returns: Schema): boolean {
  return returns.type === 'string' && returns.format === 'pve-upid'
}

function optionsOf(params: Properties, unlisted: readonly string[] = []): Record<string, CommandOption> {
  const options: Record<string, CommandOption> = {}
  const families = familiesOf(Object.keys(params))
  for (const [name, schema] of Object.entries(params)) {
    const family = families.get(name)
    options[name] = {
      type: schema.type,
      ...(schema.description === undefined ? {} : { description: schema.description }),
      required: !schema.isOptional,
      ...(schema.enum ? { enum: schema.enum } : {}),
      ...(schema.default === undefined ? {} : { default: schema.default }),
      multiple: schema.type === 'array',
      isSecret: schema.isSecret ?? false,
      ...(unlisted.includes(name) ? { isListed: false as const } : {}),
      ...(family ? { family } : {}),
    }
  }
  return options
}

/** First member of each family of three or more (`scsi0`, `scsi1`, …) to its name and size. */
function familiesOf(names: readonly string[]): Map<string, { name: string; count: number }> {
  const counts = new Map<string, number>()
  for (const name of names) {
    const stem = /^([a-z]+)\d+$/.exec(name)?.[1]
    if (stem !== undefined) counts.set(stem, (counts.get(stem) ?? 0) + 1)
  }
  return new Map([...counts].filter(([, count]) => count >= 3).map(([name, count]) => [`${name}0`, { name, count }]))
}
