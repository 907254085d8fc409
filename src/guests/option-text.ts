/** Options as text in a configuration, and as values of the API: the same for both kinds of guests. */
import type { Properties } from '#base/schema/schema.ts'
import type { Options } from './config.ts'

/** Checked parameters as configuration text; what is none of `options` is left out. */
export function textsFrom(params: Readonly<Record<string, unknown>>, options: Properties): Options {
  return Object.fromEntries(
    Object.entries(params).flatMap(([name, value]) => {
      if (!Object.hasOwn(options, name) || value === undefined || value === null) return []
      return [[name, textOf(value)]]
    }),
  )
}

function textOf(value: unknown): string {
  if (typeof value === 'boolean') return value ? '1' : '0'
  return typeof value === 'string' ? value : JSON.stringify(value)
}

/** A stored configuration as a reply: numbers and booleans by their schema, the rest text. */
export function valuesOf(texts: Options, options: Properties): Record<string, string | number | boolean> {
  return Object.fromEntries(
    Object.entries(texts).map(([name, text]) => {
      const type = options[name]?.type
      if (type === 'integer' || type === 'number') return [name, Number(text)]
      return [name, type === 'boolean' ? text === '1' : text]
    }),
  )
}
