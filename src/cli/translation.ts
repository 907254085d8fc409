/**
 * What the command line shows and did not write itself, in the reader's language: descriptions of commands, what to do
 * next, and why words on the command line are wrong. The English text is the key, so a node knows nothing of languages,
 * and what nobody has translated yet is shown as it came.
 *
 * Loaded when it is needed: a list of guests has no use for it.
 */
import type { Language } from './text.ts'

export type Translate = (text: string) => string

/** A sentence with places for what differs: `Free {0} there.` */
interface Pattern {
  readonly matches: RegExp
  readonly translated: string
}

export async function translation(language: Language): Promise<Translate> {
  if (language === 'en') return (text) => text
  const [{ default: descriptions }, { default: sentences }] = await Promise.all([
    import('./japanese/descriptions.json', { with: { type: 'json' } }),
    import('./japanese/sentences.json', { with: { type: 'json' } }),
  ])
  const words = new Map(Object.entries(descriptions))
  const all = Object.values(sentences).flatMap((group) => Object.entries(group))
  // The one with the most words of its own fits best: another may take them for what differs.
  const patterns = all.toSorted(([a], [b]) => plainLength(b) - plainLength(a)).map(patternOf)
  return (text) => inWords(text, { words, patterns, depth: 0 })
}

interface Dictionary {
  readonly words: ReadonlyMap<string, string>
  readonly patterns: readonly Pattern[]
  /** A sentence may tell another: why a task failed, what is wrong in a field. */
  readonly depth: number
}

const deepest = 4

function inWords(text: string, dictionary: Dictionary): string {
  const { words, patterns, depth } = dictionary
  const known = words.get(text)
  if (known !== undefined || depth > deepest) return known ?? text
  const within = (part: string) => inWords(part, { ...dictionary, depth: depth + 1 })
  for (const { matches, translated } of patterns) {
    const found = matches.exec(text)
    if (found) return translated.replaceAll(/\{(\d)\}/g, (_, at: string) => within(found[Number(at) + 1] ?? ''))
  }
  return oneByOne(text, within)
}

/** Of several sentences, or a name with what is wrong with it, each by itself. */
function oneByOne(text: string, within: Translate): string {
  for (const end of ['. ', '; ', ': ']) {
    const at = text.indexOf(end)
    if (at < 0) continue
    const head = end === '. ' ? text.slice(0, at + 1) : text.slice(0, at)
    const rest = text.slice(at + end.length)
    return `${within(head)}${end === '. ' ? ' ' : end}${within(rest)}`
  }
  return text
}

const place = /\{\d\}/g

function patternOf([english, translated]: readonly [string, string]): Pattern {
  const parts = english.split(place).map((part) => RegExp.escape(part))
  return { matches: new RegExp(`^${parts.join('(.+?)')}$`, 's'), translated }
}

function plainLength(text: string): number {
  return text.replaceAll(place, '').length
}
