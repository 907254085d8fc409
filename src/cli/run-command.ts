/** Runs a command of the node: words and options become a call, its reply becomes text or a task to wait for. */
import { open } from 'node:fs/promises'
import { MiB } from '#base/bytes.ts'
import { Fault, invalid, isFault } from '#base/fault.ts'
import { asFileFault } from '#host/files.ts'
import { type Command, type CommandList, dryRun } from '#rest/command.ts'
import { name, usage } from './command-tree.ts'
import { exitCodes } from './exit.ts'
import { parseFor, type Parsed } from './arguments.ts'
import type { Connection } from './connection.ts'
import type { OpenedTerminal } from './console.ts'
import { filledPath, withoutPath } from './path.ts'
import { printed } from './print.ts'
import type { Terminal } from './terminal.ts'
import { say } from './text.ts'

export interface RunFacts {
  readonly connection: Connection
  readonly list: CommandList
  readonly terminal: Terminal
}

export async function runCommand(command: Command, args: readonly string[], facts: RunFacts): Promise<number> {
  try {
    return await run(command, args, facts)
  } catch (error) {
    // A wrong word and nothing said about the right one: the help knows.
    if (!isFault(error, 'invalid') || error.remedy !== undefined) throw error
    const { message, cause, fields = {} } = error
    throw new Fault('invalid', message, { cause, fields, remedy: `hako ${name(command)} --help` })
  }
}

async function run(asked: Command, args: readonly string[], facts: RunFacts): Promise<number> {
  const { connection, list, terminal } = facts
  const { command, parsed } = meant(asked, parseFor(asked, args))
  if (parsed.global.help) {
    const { commandHelp } = await import('./help.ts')
    terminal.out(await commandHelp(command, terminal))
    return exitCodes.ok
  }
  const given = await withSecrets(command, await withFiles(command, parsed), terminal)
  const { params: named, chosen } = withChoice(command, paramsOf(command, given, list.node))
  const params = await withInput(command, parsed, named, terminal)
  demandConfirmation(command, parsed, params, terminal)
  if (command.terminal !== undefined && parsed.global.output === 'table') {
    ;(await import('./console.ts')).requireTerminal()
  }
  const [path, rest] = [filledPath(command.path, params), withoutPath(command.path, params)]
  if (command.saves) {
    const { save } = await import('./save.ts')
    return save({ command, saves: command.saves, path, params, connection, terminal })
  }
  const { data: reply } = await connection.call(command.method, path, rest, {
    isUpload: command.isUpload,
    signal: terminal.signal,
  })
  const data = reply ?? chosen ?? null
  const { output: format, wait, timeoutSeconds } = parsed.global
  if (command.isTask && typeof data === 'string' && wait) return awaitTask(data, parsed, connection, terminal)
  if (command.follow && wait && format === 'table') {
    const { followToEnd } = await import('./follow.ts')
    return followToEnd({ follow: command.follow, started: data, params, connection, terminal, timeoutSeconds })
  }
  if (command.terminal !== undefined && format === 'table') {
    const { openConsole } = await import('./console.ts')
    const place = filledPath(command.terminal, params)
    return openConsole({ opened: data as OpenedTerminal, path: place, socketPath: connection.socketPath, terminal })
  }
  const { columns, id, raw, isViewerFile } = command
  const { language, width } = terminal
  const text = await printed(data, { format, columns, id, raw, isViewerFile, language, width })
  if (text !== '') terminal.out(text)
  return holds(command, data) ? exitCodes.ok : exitCodes.unproven
}

/** Where the API would find a name and keep it to itself, the command finds it. */
function withChoice({ chooses }: Command, params: Record<string, string | string[]>) {
  if (!chooses || params[chooses.option] !== undefined) return { params }
  const chosen = `${chooses.prefix}${crypto.randomUUID().slice(0, 13)}`
  return { params: { ...params, [chooses.option]: chosen }, chosen }
}

/** With `--dry-run` a command is the question what it would do. */
function meant(command: Command, parsed: Parsed): { command: Command; parsed: Parsed } {
  const { [dryRun]: isDry, ...params } = parsed.params
  if (!command.dryRun || isDry === undefined) return { command, parsed }
  const { destroys: _, ...harmless } = command
  const asking: Command = { ...harmless, ...command.dryRun, method: 'GET', isTask: false }
  return { command: isDry === '1' ? asking : command, parsed: { ...parsed, params } }
}

function holds({ proves }: Command, data: unknown): boolean {
  if (proves === undefined || typeof data !== 'object' || data === null) return true
  const value: unknown = Reflect.get(data, proves)
  return value === true || value === 1
}

/** Secrets come through standard input or a prompt: an argument is there for everybody's `ps` to read. */
async function withSecrets(command: Command, parsed: Parsed, terminal: Terminal): Promise<Parsed> {
  const params: Record<string, string | string[]> = { ...parsed.params }
  for (const [name, { isSecret, required }] of Object.entries(command.options)) {
    const given = params[name]
    if (!isSecret || (given === undefined && !required) || command.files?.includes(name)) continue
    if (given !== undefined && given !== '-') {
      throw new Fault('invalid', `--${name} on the command line can be read by every user of this machine`, {
        remedy: `Leave it out to be asked, or give '--${name} -' and the secret on standard input.`,
      })
    }
    params[name] = await terminal.readSecret(`${name}: `)
  }
  return { ...parsed, params }
}

const longestFile = 1 * MiB

/** A file on the command line stands for its text. @throws Fault `missing`, `too-large` */
async function withFiles(command: Command, parsed: Parsed): Promise<Parsed> {
  const params: Record<string, string | string[]> = { ...parsed.params }
  for (const name of command.files ?? []) {
    const path = params[name]
    if (typeof path !== 'string') continue
    const file = await open(path, 'r').catch((cause: unknown) => {
      throw asFileFault(cause, path)
    })
    try {
      const { bytesRead, buffer } = await file.read(Buffer.alloc(longestFile + 1), 0, longestFile + 1)
      if (bytesRead > longestFile) throw new Fault('too-large', `'${path}' is longer than ${longestFile} bytes`)
      params[name] = buffer.toString('utf8', 0, bytesRead)
    } finally {
      await file.close()
    }
  }
  return { ...parsed, params }
}

async function withInput(
  command: Command,
  { global }: Parsed,
  params: Record<string, string | string[]>,
  terminal: Terminal,
) {
  if (!command.follow || !global.stdin) return params
  return { ...params, [command.follow.input]: await terminal.readInput(command.follow.inputBytes) }
}

/** Follows a task to its end and says how it ended. */
export async function awaitTask(
  upid: string,
  { global }: Parsed,
  connection: Connection,
  terminal: Terminal,
): Promise<number> {
  const { quiet, timeoutSeconds, output } = global
  const { language, show, signal } = terminal
  const { waitForTask } = await import('./wait.ts')
  const status = await waitForTask({
    connection,
    upid,
    language,
    quiet: quiet || output !== 'table',
    timeoutSeconds,
    show,
    signal,
  })
  if (output !== 'table') {
    terminal.out(
      await printed(output === 'id' ? upid : { upid, exitstatus: status }, {
        format: output,
        language,
        width: terminal.width,
      }),
    )
  } else terminal.show(status)
  return exitCodes.ok
}

/** Positionals by their order, options by name, the node filled in. @throws Fault `invalid` naming what is missing or too much */
export function paramsOf(
  command: Command,
  { positionals, params }: Parsed,
  node: string,
): Record<string, string | string[]> {
  const all: Record<string, string | string[]> = { ...command.defaults, ...params }
  for (const [at, name] of command.positional.entries()) {
    const value = positionals[at]
    // The last positional of a list type takes all that follow: `hako vm exec 100 -- ls -l`.
    const isOpenEnd = at === command.positional.length - 1 && command.options[name]?.multiple
    if (isOpenEnd && positionals.length > at) all[name] = positionals.slice(at)
    else if (value !== undefined) all[name] = value
    if (isOpenEnd) return finished(command, all, node)
  }
  const extra = positionals.slice(command.positional.length)
  if (extra.length > 0)
    throw new Fault('invalid', `'${extra.join(' ')}' is too much`, { remedy: `hako ${usage(command)}` })
  return finished(command, all, node)
}

function finished(
  command: Command,
  all: Record<string, string | string[]>,
  node: string,
): Record<string, string | string[]> {
  if ('node' in command.options && command.path.includes('{node}')) all.node ??= node
  const absent = Object.entries(command.options).filter(([name, { required }]) => required && all[name] === undefined)
  if (absent.length > 0)
    throw invalid(
      Object.fromEntries(absent.map(([option]) => [option, 'property is missing and it is not optional'])),
      { remedy: `hako ${usage(command)}` },
    )
  return all
}

function demandConfirmation(
  command: Command,
  { global }: Parsed,
  params: Readonly<Record<string, string | string[]>>,
  terminal: Terminal,
): void {
  if (command.destroys === undefined) return
  if (command.destroysWhen !== undefined && !['1', 'true'].includes(String(params[command.destroysWhen] ?? ''))) return
  const target = String(params[command.destroys] ?? '')
  if (global.confirm !== target) {
    throw new Fault('invalid', say(terminal.language, 'confirm', target), {
      remedy: say(terminal.language, 'confirmRemedy', target),
    })
  }
}
