/**
 * Secrets in parameters: a password reaches the worker through its standard input and no other way.
 *
 * They are taken out of what is written down, and their text is taken out of every log line, error and result,
 * because a program that fails likes to repeat what it was given.
 */
import type { Json } from '#store/store.ts'

/** Shorter ones stay in texts: replacing every "1" would hide the log and protect nothing. */
const shortestHidden = 4
const stars = '********'

export interface Redactor {
  readonly text: (text: string) => string
  readonly json: (value: Json | undefined) => Json | undefined
}

/** The parameters without those named. */
export function withoutSecrets(params: Json, names: readonly string[]): Json {
  if (params === null || typeof params !== 'object' || isList(params)) return params
  return Object.fromEntries(Object.entries(params).filter(([name]) => !names.includes(name)))
}

/** Takes the text of the named parameters out of whatever it is given. */
export function redactorFor(params: Json, names: readonly string[]): Redactor {
  const secrets: string[] = []
  if (params !== null && typeof params === 'object' && !isList(params)) {
    for (const name of names) collectTexts(params[name], secrets)
  }
  // Longest first: one secret may contain another.
  secrets.sort((a, b) => b.length - a.length)
  const text = (line: string) => secrets.reduce((hidden, secret) => hidden.replaceAll(secret, stars), line)
  return { text, json: (value) => mapTexts(value, text) }
}

function collectTexts(value: Json | undefined, into: string[]): void {
  if (typeof value === 'string') {
    // A secret of several lines reaches the log line by line.
    into.push(...[value, ...value.split('\n')].filter((text) => text.length >= shortestHidden))
  } else if (value !== null && typeof value === 'object') {
    for (const part of Object.values(value)) collectTexts(part as Json | undefined, into)
  }
}

function mapTexts(value: Json | undefined, change: (text: string) => string): Json | undefined {
  if (typeof value === 'string') return change(value)
  if (value === null || typeof value !== 'object') return value
  if (isList(value)) return value.map((item) => mapTexts(item, change) ?? null)
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, mapTexts(item, change)]))
}

/** `Array.isArray` does not narrow a readonly list. */
function isList(value: object): value is readonly Json[] {
  return Array.isArray(value)
}
