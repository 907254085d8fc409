#!/usr/bin/env node
/**
 * `hako`: the command line. It has no behaviour of its own: its commands come from the node it talks to
 * (`GET /hako/commands`), and what it does is call, wait and print.
 *
 * A person waits for each call of it from the start of Node on, and that is most of the time: what only some
 * commands need is therefore imported where it is used. `bench/vm-list.ts` keeps watch.
 */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { asOne, Fault, isFault, messageOf } from '#base/fault.ts'
import type { Command, CommandList } from '#rest/command.ts'
import { leadingWords, parseFor, wordsFirst } from './arguments.ts'
import type { Given } from './complete.ts'
import { apiUsage, builtIn, builtInCommands, withOwnOptions } from './built-in.ts'
import { findCommand, name, suggestions } from './command-tree.ts'
import { type Connection, connectionTo } from './connection.ts'
import { exitCodeOf, exitCodes } from './exit.ts'
import { localCommands } from './local.ts'
import { filledPath } from './path.ts'
import { printed } from './print.ts'
import { awaitTask, runCommand } from './run-command.ts'
import { processTerminal, type Terminal } from './terminal.ts'
import { type Language, languageFrom, say } from './text.ts'

const runRoot = '/run/hakobune'

process.exitCode = await main(process.argv.slice(2), process.env)

async function main(args: readonly string[], env: Readonly<Record<string, string | undefined>>): Promise<number> {
  const language = languageFrom(optionValue(args, '--lang'), env)
  const terminal = processTerminal(language)
  try {
    return await dispatch(args, env, terminal)
  } catch (error) {
    return await complain(isFault(error, 'unauthenticated') ? await unknownUser(error, language) : error, language)
  }
}

async function dispatch(
  given: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  terminal: Terminal,
): Promise<number> {
  if (given[0] === '__complete') return complete(given.slice(1), await connect([], env, terminal.language), terminal)
  const args = given[0] === 'help' ? [...given.slice(1), '--help'] : wordsFirst(given)
  const words = leadingWords(args)
  const local = localCommands.find((command) => command.words.every((word, at) => words[at] === word))
  if (local) {
    const rest = args.slice(local.words.length)
    if (rest.includes('--help') || rest.includes('-h')) {
      terminal.out(await (await import('./help.ts')).localHelp(local, terminal))
      return exitCodes.ok
    }
    return local.run(rest, terminal, { env, connect: () => connect(args, env, terminal.language) })
  }
  const isForHelp = words.length === 0 || args.includes('--help') || args.includes('-h')
  // Nothing of the engine by itself is asked of a node, and so nothing about it.
  if (words[0] === 'datastore') return showHelp(words, args, { commands: [], node: '', version: '' }, terminal)
  const builtIn = isForHelp ? findCommand(builtInCommands(terminal.language), words)?.command : undefined
  if (builtIn) return showCommandHelp(builtIn, terminal)
  const connection = await connect(args, env, terminal.language)
  if (words[0] === 'api') return rawCall(args.slice(1), connection, terminal)
  if (words[0] === 'task' && words[1] === 'wait') return waitCommand(args.slice(2), connection, terminal)
  if (words[0] === 'task' && words[1] === 'log' && args.some(isFollow)) {
    return waitCommand(
      args.slice(2).filter((arg) => !isFollow(arg)),
      connection,
      terminal,
    )
  }
  // A noun alone asks what can be done with it.
  const list = await commandList(connection, isForHelp || words.length === 1, isForHelp ? [] : words)
  if ((words[0] === 'version' && !isForHelp) || args.includes('--version'))
    return showVersion(args, list, connection, terminal)
  const found = findCommand(list.commands.map(withOwnOptions), args)
  if (!found) return showHelp(words, args, await commandList(connection, true), terminal)
  const facts = { connection, list, terminal }
  return (await runnerOf(found.command))(found.command, found.rest, facts)
}

/** Some commands do more than one call, for the person who types them. */
async function runnerOf(command: Command): Promise<typeof runCommand> {
  switch (name(command)) {
    // An app's secret is made here: no person types one.
    case 'user tfa add':
      return (await import('./add-factor.ts')).addFactor
    case 'diagram':
      return (await import('./diagram/command.ts')).drawDiagram
    case 'vm set':
      return (await import('./set-guest.ts')).setGuest
    case 'storage remove':
      return (await import('./remove-storage.ts')).removeStorage
    default:
      return runCommand
  }
}

async function connect(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  language: Language,
): Promise<Connection> {
  const wished = optionValue(args, '--instance') ?? env.HAKO_INSTANCE
  const here = await instancesHere()
  // The one node that runs on this machine, else the lab.
  const instance = wished ?? (here.length === 1 ? here[0] : undefined) ?? 'lab'
  const others = here.filter((one) => one !== instance)
  return connectionTo(env.HAKO_RUN_DIR ?? join(runRoot, instance), (socketPath) => {
    const remedy =
      others.length === 0 ? say(language, 'noNodeRemedy') : say(language, 'otherNodeRemedy', others.join(', '))
    return new Fault('unavailable', say(language, 'noNode', socketPath), { remedy })
  })
}

async function instancesHere(): Promise<string[]> {
  return readdir(runRoot).catch(() => [])
}

/**
 * The node's commands; help works without a node too, from the same descriptions read at greater cost.
 * @param words of a command line: only what they can mean is asked for, which is next to nothing of the whole
 */
async function commandList(
  connection: Connection,
  isForHelp: boolean,
  words: readonly string[] = [],
): Promise<CommandList> {
  const typed = words.slice(0, 4).join(' ').slice(0, 256)
  try {
    return (await connection.call('GET', '/hako/commands', typed === '' ? {} : { words: typed })).data as CommandList
  } catch (error) {
    if (!isForHelp) throw error
    const [{ offlineCommands }, { settingsFrom }] = await Promise.all([import('#commands.ts'), import('#settings.ts')])
    return offlineCommands(settingsFrom({}).node)
  }
}

function isFollow(arg: string): boolean {
  return arg === '-f' || arg === '--follow'
}

/** `hako task wait UPID`: comes back to a task that was not waited for. */
async function waitCommand(args: readonly string[], connection: Connection, terminal: Terminal): Promise<number> {
  const parsed = parseFor({ positional: ['upid'], options: {} }, args)
  const [upid, ...extra] = parsed.positionals
  if (upid === undefined || extra.length > 0) throw new Fault('invalid', 'name one task: hako task wait <upid>')
  return awaitTask(upid, parsed, connection, terminal)
}

/** `hako api GET /nodes`, `hako api POST /nodes/lab/qemu vmid=100 memory=256`. */
async function rawCall(args: readonly string[], connection: Connection, terminal: Terminal): Promise<number> {
  const { positionals, global } = parseFor({ positional: [], options: {} }, args)
  const [method = '', path = '', ...pairs] = positionals
  if (!/^(GET|POST|PUT|DELETE)$/i.test(method) || !path.startsWith('/')) {
    throw new Fault('invalid', 'this is no call of the API', { remedy: apiUsage })
  }
  const params: Record<string, string[]> = {}
  for (const pair of pairs) {
    const at = pair.indexOf('=')
    if (at < 1) throw new Fault('invalid', `'${pair}' is not name=value`)
    ;(params[pair.slice(0, at)] ??= []).push(pair.slice(at + 1))
  }
  const { data } = await connection.call(method.toUpperCase(), path, params, { signal: terminal.signal })
  const format = global.output === 'table' ? 'json' : global.output
  terminal.out(await printed(data, { format, language: terminal.language, width: terminal.width }))
  return exitCodes.ok
}

async function showVersion(
  args: readonly string[],
  list: CommandList,
  connection: Connection,
  terminal: Terminal,
): Promise<number> {
  const { global } = parseFor(
    { positional: [], options: {} },
    args.filter((arg) => arg !== 'version' && arg !== '--version'),
  )
  const { data } = await connection.call('GET', '/version')
  const facts = { hako: list.version, node: list.node, ...(data as Record<string, unknown>) }
  terminal.out(
    await printed(facts, { format: global.output, id: 'hako', language: terminal.language, width: terminal.width }),
  )
  return exitCodes.ok
}

async function showHelp(
  words: readonly string[],
  args: readonly string[],
  list: CommandList,
  terminal: Terminal,
): Promise<number> {
  const [noun = ''] = words
  const { language } = terminal
  const commands = [...list.commands, ...localAsCommands(language), ...builtInCommands(language)]
  const nouns = [...new Set(commands.map((command) => command.words[0] ?? ''))]
  const isNoun = words.length > 0 && nouns.includes(noun)
  const below = belowWhich(commands, words)
  if ((isNoun || words.length === 0) && below.length === words.length) {
    const { listHelp, overview } = await import('./help.ts')
    terminal.out(words.length === 0 ? await overview(commands, terminal) : await listHelp(commands, below, terminal))
    return words.length === 0 && args.length === 0 ? exitCodes.usage : exitCodes.ok
  }
  const typed = words.slice(0, isNoun ? Math.max(2, verbWords(commands, words)) : 1).join(' ')
  const near = suggestions(isNoun ? commands.map(name) : nouns, typed)
  const remedy = near.length > 0 ? say(language, 'didYouMean', near.join(', ')) : `hako ${isNoun ? noun : ''} --help`
  const details = { remedy: remedy.replace('  ', ' ') }
  throw new Fault('invalid', say(language, 'unknownCommand', typed), details)
}

/** As many of the words as lead to commands: `vm snapshot` has verbs of its own. */
function belowWhich(commands: readonly Command[], words: readonly string[]): readonly string[] {
  const lengths = [...words.keys()].map((at) => at + 1).toReversed()
  const leads = (length: number) =>
    commands.some(({ words: own }) => words.slice(0, length).every((word, at) => own[at] === word))
  return words.slice(0, lengths.find(leads) ?? 0)
}

/** How many of the words begin some command: `vm agent foo` is about `vm agent …`, so three are shown. */
function verbWords(commands: readonly Command[], words: readonly string[]): number {
  const isPrefix = (count: number) =>
    commands.some((command) => words.slice(0, count).every((word, at) => command.words[at] === word))
  let count = 0
  while (count < words.length && isPrefix(count + 1)) count += 1
  return Math.min(words.length, count + 1)
}

/** Commands that need no node stand in the help beside those that do. */
function localAsCommands(language: Language): CommandList['commands'] {
  return localCommands.map(({ words, description, examples }) =>
    builtIn(words, { description: description[language], examples }),
  )
}

async function showCommandHelp(command: Command, terminal: Terminal): Promise<number> {
  const { commandHelp } = await import('./help.ts')
  terminal.out(await commandHelp(command, terminal))
  return exitCodes.ok
}

async function complete(typed: readonly string[], connection: Connection, terminal: Terminal): Promise<number> {
  const { candidates, sourceOf } = await import('./complete.ts')
  const list = await commandList(connection, true)
  const commands = [...list.commands.map(withOwnOptions), ...builtInCommands(terminal.language)]
  const idsOf = async (command: Command, parameter: string, given: Given): Promise<string[]> => {
    const source = sourceOf(list.commands, command, parameter)
    if (!source) return []
    const { data } = await connection.call('GET', filledPath(source.command.path, { ...given, node: list.node }))
    const values = (data as Record<string, unknown>[]).map((row) => row[source.column])
    return values.filter((value) => typeof value === 'string' || typeof value === 'number').map(String)
  }
  const found = await candidates(
    commands,
    localCommands.map(({ words }) => words),
    typed,
    (...asked) => idsOf(...asked).catch(() => []),
  )
  if (found.length > 0) terminal.out(found.join('\n'))
  return exitCodes.ok
}

/** The socket knows callers by the kernel's word: there is nothing to log in with. */
async function unknownUser(fault: Fault, language: Language): Promise<Fault> {
  const { userInfo } = await import('node:os')
  // A uid without an entry in passwd has no name.
  const userName = ((): string | undefined => {
    try {
      return userInfo().username
    } catch {
      return undefined
    }
  })()
  return new Fault('unauthenticated', say(language, 'notKnown', userName ?? String(process.getuid?.())), {
    cause: fault,
    remedy: say(language, 'notKnownRemedy', userName ?? 'NAME'),
  })
}

async function complain(thrown: unknown, language: Language): Promise<number> {
  const translate = await (await import('./translation.ts')).translation(language)
  const error = asOne(thrown)
  const lines = [`hako: ${translate(messageOf(error))}`]
  if (error instanceof Fault) {
    for (const [field, text] of Object.entries(error.fields ?? {})) lines.push(`  ${field}: ${translate(text)}`)
    if (error.remedy !== undefined) lines.push(`${say(language, 'nextStep')}: ${translate(error.remedy)}`)
  } else if (error instanceof Error) lines.push(error.stack ?? '')
  process.stderr.write(`${lines.join('\n')}\n`)
  return exitCodeOf(error)
}

function optionValue(args: readonly string[], option: string): string | undefined {
  const at = args.indexOf(option)
  return at >= 0 ? args[at + 1] : args.find((arg) => arg.startsWith(`${option}=`))?.slice(option.length + 1)
}
