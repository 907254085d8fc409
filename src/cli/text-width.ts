/**
 * How wide text is on a terminal.
 *
 * A letter of a Japanese name takes two columns and a combining mark none, which `string-width` knows. Most
 * tables hold neither, and loading it takes as long as the rest of a command: so only text that may need it
 * pays for it.
 */
export type Measure = (text: string) => number

/** Measures any of these texts, and any part of one. */
export async function measureFor(texts: readonly string[]): Promise<Measure> {
  if (texts.every(isPlain)) return (text) => text.length
  return (await import('string-width')).default
}

function isPlain(text: string): boolean {
  return /^[\x20-\x7e]*$/.test(text)
}
