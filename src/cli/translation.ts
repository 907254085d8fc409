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
  return (text) => words.get(text) ?? byPattern(patterns, text)
}

function byPattern(patterns: readonly Pattern[], text: string): string {
  for (const { matches, translated } of patterns) {
    const found = matches.exec(text)
    if (found) return translated.replaceAll(/\{(\d)\}/g, (_, at: string) => found[Number(at) + 1] ?? '')
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
