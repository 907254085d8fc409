/** `--help`: what a command does, its options with bounds, examples. Made from the same description the API checks by. */
import type { Command, CommandOption } from '#rest/command.ts'
import { commandsBelow, usage } from './command-tree.ts'
import { exampleOf } from './example.ts'
import type { LocalCommand, LocalOption } from './local.ts'
import { type Language, say } from './text.ts'
import { measureFor } from './text-width.ts'
import { type Translate, translation } from './translation.ts'
import { columns, usualWidth, wrapped } from './wrap.ts'

const globals: readonly (readonly [string, Parameters<typeof say>[1]])[] = [
  ['-o, --output FORMAT', 'outputHelp'],
  ['    --no-wait', 'noWaitHelp'],
  ['    --wait-timeout SECONDS', 'timeoutHelp'],
  ['-q, --quiet', 'quietHelp'],
  ['    --instance NAME', 'instanceHelp'],
  ['    --lang LANGUAGE', 'langHelp'],
]

export interface HelpFacts {
  readonly language: Language
  /** Columns of the terminal. */
  readonly width: number | undefined
}

export function globalHelp({ language, width = usualWidth }: HelpFacts): Promise<string> {
  return columns(globalRows(language), width)
}

function globalRows(language: Language, only = globals.map(([left]) => left)): [string, string][] {
  return globals.filter(([left]) => only.includes(left)).map(([left, sentence]) => [left, say(language, sentence)])
}

/** Every noun with its verbs. */
export async function overview(commands: readonly Command[], facts: HelpFacts): Promise<string> {
  const { language, width = usualWidth } = facts
  const translate = await translation(language)
  const nouns = [...new Set(commands.map(({ words }) => words[0] ?? ''))].toSorted()
  const rows = nouns.map((noun): [string, string] => {
    const below = commandsBelow(commands, [noun])
    const verbs = [...new Set(below.map(({ words }) => words.slice(1).join(' ')))].filter(Boolean)
    return [noun, verbs.length > 0 ? verbs.join(', ') : translate(below[0]?.description ?? '')]
  })
  return [
    `${say(language, 'usage')}: hako <noun> <verb> …`,
    `${say(language, 'commands')}:\n${await columns(rows, width)}`,
    `${say(language, 'global')}:\n${await globalHelp(facts)}`,
    say(language, 'more', say(language, 'nounAndVerb')),
  ].join('\n\n')
}

/** The verbs of a noun, or of a noun and a word. */
export async function listHelp(
  commands: readonly Command[],
  words: readonly string[],
  { language, width = usualWidth }: HelpFacts,
): Promise<string> {
  const translate = await translation(language)
  const rows = commandsBelow(commands, words).map((command): [string, string] => [
    usage(command),
    translate(command.description),
  ])
  const noun = words.join(' ')
  return [
    `${say(language, 'usage')}: hako ${noun} …`,
    await columns(rows, width),
    say(language, 'more', `${noun} ${say(language, 'verb')}`),
  ].join('\n\n')
}

export async function commandHelp(command: Command, facts: HelpFacts): Promise<string> {
  const { language, width = usualWidth } = facts
  const translate = await translation(language)
  const parts = [
    await paragraph(translate(command.description), width),
    `${say(language, 'usage')}: hako ${usage(command)}`,
  ]
  const options = optionRows(command, language, translate)
  if (options.length > 0) parts.push(`${say(language, 'options')}:\n${await columns(options, width)}`)
  const unlisted = Object.keys(command.options).filter((option) => command.options[option]?.isListed === false)
  if (unlisted.length > 0) {
    const sentence = say(language, 'quietOptions', unlisted.map((option) => `--${option}`).join(', '))
    parts.push(await paragraph(sentence, width))
  }
  const own = ownRows(command, language)
  if (own.length > 0) parts.push(await columns(own, width))
  parts.push(`${say(language, 'global')}:\n${await globalHelp(facts)}`)
  const examples = command.examples.length > 0 ? command.examples : [exampleOf(command)]
  parts.push(`${say(language, 'examples')}:\n${examples.map((example) => `  hako ${example}`).join('\n')}`)
  return parts.join('\n\n')
}

/** Of a command that is described here, and not by a node. */
export async function localHelp(local: LocalCommand, { language, width = usualWidth }: HelpFacts): Promise<string> {
  const all = Object.entries(local.options ?? {})
  const options: string[] = []
  for (const heading of new Set([undefined, ...all.map(([, option]) => option.heading)])) {
    const rows = all.filter(([, option]) => option.heading === heading).map((one) => localRow(one, language))
    const title = heading?.[language] ?? say(language, 'options')
    if (rows.length > 0) options.push(`${title}:\n${await columns(rows, width)}`)
  }
  return [
    await paragraph(local.description[language], width),
    `${say(language, 'usage')}: hako ${local.usage}`,
    ...options,
    `${say(language, 'global')}:\n${await columns(globalRows(language, ['-o, --output FORMAT', '-q, --quiet', '    --lang LANGUAGE']), width)}`,
    `${say(language, 'examples')}:\n${local.examples.map((example) => `  hako ${example}`).join('\n')}`,
  ].join('\n\n')
}

function localRow([name, option]: readonly [string, LocalOption], language: Language): [string, string] {
  const value = option.isFlag ? '' : ` <${name.split('-').at(-1)}>`
  return [`--${option.isSwitch ? '[no-]' : ''}${name}${value}`, option[language]]
}

async function paragraph(sentence: string, width: number): Promise<string> {
  return wrapped(sentence, width, await measureFor([sentence])).join('\n')
}

/** What the CLI adds to a command of this kind. */
function ownRows({ destroys, follow }: Command, language: Language): [string, string][] {
  return [
    ...(destroys === undefined
      ? []
      : [[`--confirm ${destroys.toUpperCase()}`, say(language, 'confirmHelp')] as [string, string]]),
    ...(follow ? [['--stdin', say(language, 'stdinHelp')] as [string, string]] : []),
  ]
}

function optionRows(command: Command, language: Language, translate: Translate): [string, string][] {
  const members = new Set<string>()
  for (const { family } of Object.values(command.options)) {
    for (let at = 1; family && at < family.count; at += 1) members.add(`${family.name}${at}`)
  }
  return Object.entries(command.options)
    .filter(
      ([option, { isListed }]) =>
        isListed !== false && !command.positional.includes(option) && option !== 'node' && !members.has(option),
    )
    .map(([option, facts]) => [
      label(option, facts),
      explain({ ...facts, description: translate(facts.description ?? '') }, language),
    ])
}

function label(option: string, { type, family }: CommandOption): string {
  const shown = family ? `${family.name}[0-${family.count - 1}]` : option
  return type === 'boolean'
    ? `--[no-]${shown}`
    : `--${shown} ${type === 'array' ? 'TEXT …' : type === 'string' ? 'TEXT' : 'N'}`
}

function explain(
  { type, description = '', enum: allowed, default: usual, required }: CommandOption,
  language: Language,
): string {
  const notes = [
    ...(required ? [say(language, 'required')] : []),
    ...(allowed ? [allowed.join(' | ')] : []),
    ...(usual === undefined || usual === '' || (type === 'boolean' && !usual) ? [] : [`= ${usual}`]),
  ]
  return `${description}${notes.length > 0 ? ` (${notes.join('; ')})` : ''}`
}
