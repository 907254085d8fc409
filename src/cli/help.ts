/** `--help`: what a command does, its options with bounds, examples. Made from the same description the API checks by. */
import type { Command, CommandOption } from '#rest/command.ts'
import { commandsBelow, name } from './command-tree.ts'
import { type Language, say } from './text.ts'

const globals: readonly (readonly [string, Parameters<typeof say>[1]])[] = [
  ['-o, --output FORMAT', 'outputHelp'],
  ['    --no-wait', 'noWaitHelp'],
  ['    --wait-timeout SECONDS', 'timeoutHelp'],
  ['-q, --quiet', 'quietHelp'],
  ['    --instance NAME', 'instanceHelp'],
  ['    --lang LANGUAGE', 'langHelp'],
]

export function globalHelp(language: Language): string {
  return columns(globals.map(([left, sentence]) => [left, say(language, sentence)]))
}

/** The verbs of a noun, or all nouns' verbs. */
export function listHelp(commands: readonly Command[], words: readonly string[], language: Language): string {
  const rows = commandsBelow(commands, words).map((command): [string, string] => [usage(command), command.description])
  return `${say(language, 'usage')}: hako ${words.length > 0 ? `${words.join(' ')} ` : ''}…\n\n${columns(rows)}\n\n${say(language, 'more')}`
}

export function commandHelp(command: Command, language: Language): string {
  const parts = [command.description, `${say(language, 'usage')}: hako ${usage(command)}`]
  const options = optionRows(command, language)
  if (options.length > 0) parts.push(`${say(language, 'options')}:\n${columns(options)}`)
  if (command.destroys !== undefined)
    parts.push(columns([[`--confirm ${command.destroys.toUpperCase()}`, say(language, 'confirmHelp')]]))
  parts.push(`${say(language, 'global')}:\n${globalHelp(language)}`)
  if (command.examples.length > 0)
    parts.push(`${say(language, 'examples')}:\n${command.examples.map((example) => `  hako ${example}`).join('\n')}`)
  return parts.join('\n\n')
}

export function usage(command: Command): string {
  const required = Object.entries(command.options)
    .filter(
      ([option, { required: isRequired }]) => isRequired && option !== 'node' && !command.positional.includes(option),
    )
    .map(([option]) => `--${option} ${option.toUpperCase()}`)
  return [name(command), ...command.positional.map((word) => `<${word}>`), ...required].join(' ')
}

function optionRows(command: Command, language: Language): [string, string][] {
  const members = new Set<string>()
  for (const { family } of Object.values(command.options)) {
    for (let at = 1; family && at < family.count; at += 1) members.add(`${family.name}${at}`)
  }
  return Object.entries(command.options)
    .filter(([option]) => !command.positional.includes(option) && option !== 'node' && !members.has(option))
    .map(([option, facts]) => [label(option, facts), explain(facts, language)])
}

function label(option: string, { type, family }: CommandOption): string {
  const shown = family ? `${family.name}[0-${family.count - 1}]` : option
  return type === 'boolean'
    ? `--[no-]${shown}`
    : `--${shown} ${type === 'array' ? 'TEXT …' : type === 'string' ? 'TEXT' : 'N'}`
}

function explain(
  { description = '', enum: allowed, default: usual, required }: CommandOption,
  language: Language,
): string {
  const notes = [
    ...(required ? [say(language, 'required')] : []),
    ...(allowed ? [allowed.join(' | ')] : []),
    ...(usual === undefined ? [] : [`= ${usual}`]),
  ]
  return `${description}${notes.length > 0 ? ` (${notes.join('; ')})` : ''}`
}

function columns(rows: readonly (readonly [string, string])[]): string {
  const width = Math.min(44, Math.max(0, ...rows.map(([left]) => left.length)))
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`.trimEnd()).join('\n')
}
