/** Runs a command of the node: words and options become a call, its reply becomes text or a task to wait for. */
import { Fault, invalid } from '#base/fault.ts'
import type { Command, CommandList } from '#rest/command.ts'
import { exitCodes } from './exit.ts'
import { followToEnd } from './follow.ts'
import { parseFor, type Parsed } from './arguments.ts'
import type { Connection } from './connection.ts'
import { commandHelp } from './help.ts'
import { filledPath, withoutPath } from './path.ts'
import { printed } from './print.ts'
import type { Terminal } from './terminal.ts'
import { say } from './text.ts'
import { waitForTask } from './wait.ts'

export interface RunFacts {
  readonly connection: Connection
  readonly list: CommandList
  readonly terminal: Terminal
}

export async function runCommand(
  command: Command,
  args: readonly string[],
  { connection, list, terminal }: RunFacts,
): Promise<number> {
  const parsed = parseFor(command, args)
  if (parsed.global.help) {
    terminal.out(commandHelp(command, terminal.language))
    return exitCodes.ok
  }
  const params = paramsOf(command, parsed, list.node)
  demandConfirmation(command, parsed, params, terminal)
  const { data } = await connection.call(
    command.method,
    filledPath(command.path, params),
    withoutPath(command.path, params),
    {
      uploadDir: command.isUpload ? list.uploadDir : undefined,
      signal: terminal.signal,
    },
  )
  const { output: format, wait } = parsed.global
  if (command.isTask && typeof data === 'string' && wait) return awaitTask(data, parsed, connection, terminal)
  if (command.follow && wait && format === 'table')
    return followToEnd(command.follow, data, params, connection, terminal)
  const { columns, id } = command
  const text = await printed(data, { format, columns, id, language: terminal.language, width: terminal.width })
  if (text !== '') terminal.out(text)
  return exitCodes.ok
}

async function awaitTask(
  upid: string,
  { global }: Parsed,
  connection: Connection,
  terminal: Terminal,
): Promise<number> {
  const { quiet, timeoutSeconds, output } = global
  const { language, show, signal } = terminal
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
  const all: Record<string, string | string[]> = { ...params }
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
    throw new Fault(
      'invalid',
      `'${extra.join(' ')}' is too much: this command takes ${command.positional.length || 'no'} plain argument(s)`,
    )
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
    throw invalid(Object.fromEntries(absent.map(([name]) => [name, 'property is missing and it is not optional'])))
  return all
}

function demandConfirmation(
  command: Command,
  { global }: Parsed,
  params: Readonly<Record<string, string | string[]>>,
  terminal: Terminal,
): void {
  if (command.destroys === undefined) return
  const target = String(params[command.destroys] ?? '')
  if (global.confirm !== target) throw new Fault('invalid', say(terminal.language, 'confirm', target))
}
