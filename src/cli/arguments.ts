/**
 * Splits a command line into words and options, first without knowing the command, then against it.
 *
 * Two passes, because which options take a value is known only once the command is known, and the
 * command is known only from the words in front.
 */
import { parseArgs, type ParseArgsOptionsConfig } from 'node:util'
import { Fault } from '#base/fault.ts'
import type { Command } from '#rest/command.ts'
import { suggestions } from './command-tree.ts'

export interface GlobalOptions {
  readonly output: OutputFormat
  readonly wait: boolean
  readonly timeoutSeconds: number | undefined
  readonly quiet: boolean
  readonly help: boolean
  readonly instance: string | undefined
  readonly lang: string | undefined
  readonly confirm: string | undefined
  /** Hand this process's standard input on to a program in a guest. */
  readonly stdin: boolean
}
export type OutputFormat = 'table' | 'json' | 'yaml' | 'ndjson' | 'id'
const formats: readonly string[] = ['table', 'json', 'yaml', 'ndjson', 'id']

export const globalOptions = {
  output: { type: 'string', short: 'o' },
  // Written `--no-wait`; `parseArgs` knows a negated option by the name it negates.
  wait: { type: 'boolean' },
  'wait-timeout': { type: 'string' },
  quiet: { type: 'boolean', short: 'q' },
  help: { type: 'boolean', short: 'h' },
  instance: { type: 'string' },
  lang: { type: 'string' },
  confirm: { type: 'string' },
  stdin: { type: 'boolean' },
} as const satisfies ParseArgsOptionsConfig

export interface Parsed {
  readonly positionals: readonly string[]
  /** Parameters of the call, as text (`true` as `1`). */
  readonly params: Readonly<Record<string, string | string[]>>
  readonly global: GlobalOptions
}

/** The words before the first option: noun, verb and maybe positionals. */
export function leadingWords(args: readonly string[]): string[] {
  const words: string[] = []
  for (const arg of args) {
    if (arg.startsWith('-')) break
    words.push(arg)
  }
  return words
}

/** Reads `args` (without the command's words) against a command's options. @throws Fault `invalid` */
export function parseFor(command: Pick<Command, 'options' | 'positional'>, args: readonly string[]): Parsed {
  const own: ParseArgsOptionsConfig = {}
  for (const [name, { type, multiple }] of Object.entries(command.options)) {
    if (!(name in globalOptions))
      own[name] = { type: type === 'boolean' ? 'boolean' : 'string', multiple: Boolean(multiple) }
  }
  const { values, positionals, tokens } = parse(
    { ...own, ...globalOptions },
    openEnded(booleansWithValues(args, own), command, own),
  )
  const params: Record<string, string | string[]> = {}
  for (const token of tokens) {
    if (token.kind !== 'option' || token.name in globalOptions) continue
    const isNegated =
      token.rawName.startsWith('--no-') && !(token.name in command.options && token.rawName === `--${token.name}`)
    const value = token.value ?? (isNegated ? '0' : '1')
    const before = params[token.name]
    params[token.name] = own[token.name]?.multiple ? [...(Array.isArray(before) ? before : []), value] : value
  }
  return { positionals, params, global: globalsFrom(values) }
}

/** `--onboot 0`, `--onboot=0` and `--onboot` all work, as in PVE's own tools; `parseArgs` knows only the last. */
function booleansWithValues(args: readonly string[], own: ParseArgsOptionsConfig): string[] {
  const out: string[] = []
  for (let at = 0; at < args.length; at += 1) {
    const [name = '', inline] = (args[at] ?? '').replace(/^--/, '').split('=', 2)
    const isBoolean = args[at]?.startsWith('--') && own[name]?.type === 'boolean'
    const follows = args[at + 1]
    const value = inline ?? (isBoolean && (follows === '0' || follows === '1') ? follows : undefined)
    if (!isBoolean || value === undefined) out.push(args[at] ?? '')
    else {
      out.push(value === '0' ? `--no-${name}` : `--${name}`)
      if (inline === undefined) at += 1
    }
  }
  return out
}

/** What follows the first word of an open-ended argument is not ours to read: `vm exec 100 ls -l`. */
function openEnded(
  args: readonly string[],
  command: Pick<Command, 'options' | 'positional'>,
  own: ParseArgsOptionsConfig,
): string[] {
  const last = command.positional.at(-1)
  if (last === undefined || !command.options[last]?.multiple || args.includes('--')) return [...args]
  const options: ParseArgsOptionsConfig = { ...own, ...globalOptions }
  let words = 0
  for (let at = 0; at < args.length; at += 1) {
    const arg = args[at] ?? ''
    if (!arg.startsWith('-')) words += 1
    else if (takesValue(arg, options)) at += 1
    if (words === command.positional.length) return [...args.slice(0, at), '--', ...args.slice(at)]
  }
  return [...args]
}

function takesValue(arg: string, options: ParseArgsOptionsConfig): boolean {
  if (arg.includes('=')) return false
  const name = arg.startsWith('--')
    ? arg.slice(2)
    : Object.keys(options).find((key) => options[key]?.short === arg.slice(1, 2))
  return name !== undefined && options[name]?.type === 'string' && (arg.startsWith('--') || arg.length === 2)
}

/** `hako --lang ja vm list` means `hako vm list --lang ja`: global options in front go behind the words. */
export function wordsFirst(args: readonly string[]): string[] {
  const options: ParseArgsOptionsConfig = globalOptions
  let at = 0
  while (at < args.length) {
    const arg = args[at] ?? ''
    const name = /^(?:--(?:no-)?([\w-]+)|-(\w))/.exec(arg)
    const isGlobal =
      name?.[1] === undefined ? Object.values(options).some(({ short }) => short === name?.[2]) : name[1] in options
    if (!name || !isGlobal || name[1] === 'help' || name[2] === 'h') break
    at += takesValue(arg, options) ? 2 : 1
  }
  const rest = args.slice(at)
  const end = rest.indexOf('--')
  return end < 0 ? [...rest, ...args.slice(0, at)] : [...rest.slice(0, end), ...args.slice(0, at), ...rest.slice(end)]
}

function parse(options: ParseArgsOptionsConfig, args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true, allowNegative: true, tokens: true })
  } catch (cause) {
    const text = cause instanceof Error ? (cause.message.split('. To specify')[0] ?? cause.message) : 'bad options'
    const dashed = /^Option '(?:-\w, )?--([\w-]+).*ambiguous/.exec(text)?.[1]
    if (dashed !== undefined) {
      const remedy = `A value that begins with a dash is given as --${dashed}=-VALUE.`
      throw new Fault('invalid', `--${dashed} is given no value`, { cause, remedy })
    }
    throw new Fault('invalid', text, { cause, ...next(text, Object.keys(options)) })
  }
}

function next(text: string, names: readonly string[]): { remedy?: string } {
  const unknown = /Unknown option '(?:--(?:no-)?([\w-]+)|-)/.exec(text)
  if (!unknown) return {}
  if (unknown[1] === undefined) return { remedy: 'A plain argument that begins with a dash is given after --.' }
  const near = suggestions(names, unknown[1])
  return near.length > 0 ? { remedy: `Did you mean: ${near.map((name) => `--${name}`).join(', ')}?` } : {}
}

function globalsFrom(values: Readonly<Record<string, unknown>>): GlobalOptions {
  const text = (name: string) => (typeof values[name] === 'string' ? values[name] : undefined)
  const output = text('output') ?? 'table'
  if (!formats.includes(output))
    throw new Fault('invalid', `--output is '${output}': it must be one of ${formats.join(', ')}`)
  const timeout = text('wait-timeout')
  if (timeout !== undefined && !(Number(timeout) > 0))
    throw new Fault('invalid', `--wait-timeout is '${timeout}': it must be a number of seconds above 0`)
  return {
    output: output as OutputFormat,
    wait: values.wait !== false,
    stdin: values.stdin === true,
    timeoutSeconds: timeout === undefined ? undefined : Number(timeout),
    quiet: values.quiet === true,
    help: values.help === true,
    instance: text('instance'),
    lang: text('lang'),
    confirm: text('confirm'),
  }
}
