/** Finds a command by its words, or says what was probably meant. */
import type { Command } from '#rest/command.ts'

export interface Found {
  readonly command: Command
  /** Arguments after the command's own words. */
  readonly rest: readonly string[]
}

/** The command with the most words that `args` begins with. */
export function findCommand(commands: readonly Command[], args: readonly string[]): Found | undefined {
  const fits = commands
    .filter(({ words }) => words.every((word, at) => args[at] === word))
    .toSorted((a, b) => b.words.length - a.words.length)
  const command = fits[0]
  return command ? { command, rest: args.slice(command.words.length) } : undefined
}

/** Commands that begin with these words: the verbs of a noun. */
export function commandsBelow(commands: readonly Command[], words: readonly string[]): Command[] {
  return commands
    .filter(({ words: own }) => words.every((word, at) => own[at] === word))
    .toSorted((a, b) => name(a).localeCompare(name(b)))
}

export function name({ words }: Pick<Command, 'words'>): string {
  return words.join(' ')
}

/** `vm clone <vmid> <newid>`: what must be given, and by position may be. */
export function usage(command: Command): string {
  const required = Object.entries(command.options)
    .filter(
      ([option, { required: isRequired }]) => isRequired && option !== 'node' && !command.positional.includes(option),
    )
    .map(([option]) => `--${option} ${option.toUpperCase()}`)
  const positional = command.positional.map((word) =>
    command.options[word]?.required === false || word === 'node' ? `[${word}]` : `<${word}>`,
  )
  return [name(command), ...positional, ...required].join(' ')
}

/** Up to three names a few keystrokes away. */
export function suggestions(names: readonly string[], typed: string): string[] {
  return names
    .map((candidate) => ({ candidate, away: distance(candidate, typed) }))
    .filter(({ candidate, away }) => away <= Math.max(2, Math.floor(typed.length / 3)) || candidate.startsWith(typed))
    .toSorted((a, b) => a.away - b.away)
    .slice(0, 3)
    .map(({ candidate }) => candidate)
}

/** Levenshtein distance. */
export function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, at) => at)
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i]
    for (let j = 1; j <= b.length; j += 1) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[b.length] ?? 0
}
