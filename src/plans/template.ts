/**
 * `${{ name }}`: a place in a step that a variable fills.
 *
 * Names only: no expressions, no calls. What is put in is not looked at again, so a value cannot bring places of its
 * own, and words of a command stay the words they were: a value is never split.
 */
import { invalid } from '#base/fault.ts'
import type { Value } from './value.ts'

/** Values by name: variables, `node`, `run`, and `steps.<id>.<name>` for what earlier steps recorded. */
export type Values = ReadonlyMap<string, Value>

const place = /\$\{\{([^{}]{0,200})\}\}/g
const name = /^\s*([a-z][a-z0-9-]*(?:\.[a-z][a-z0-9-]*){0,2})\s*$/

/** Names a value refers to; a place that holds no name is in `broken`. */
export function namesIn(value: Value): { readonly names: readonly string[]; readonly broken: readonly string[] } {
  const [names, broken]: [string[], string[]] = [[], []]
  for (const text of textsIn(value)) {
    for (const [whole, inner = ''] of text.matchAll(place)) {
      const found = name.exec(inner)?.[1]
      if (found === undefined) broken.push(whole)
      else names.push(found)
    }
    if (text.replaceAll(place, '').includes('${{')) broken.push(text.slice(0, 80))
  }
  return { names, broken }
}

function textsIn(value: Value): string[] {
  if (typeof value === 'string') return [value]
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, part]) => [key, ...textsIn(part)])
}

/** A text that is one place alone becomes the value with its type. @throws Fault `invalid` naming what is not known */
export function fill(value: Value, values: Values): Value {
  if (typeof value === 'string') return fillText(value, values)
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return (value as readonly Value[]).map((part) => fill(part, values))
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, fill(part, values)]))
}

function fillText(text: string, values: Values): Value {
  const alone = /^\$\{\{([^{}]{0,200})\}\}$/.exec(text)?.[1]
  if (alone !== undefined) return known(alone, values)
  return text.replaceAll(place, (_, inner: string) => textOf(known(inner, values)))
}

export function filledText(text: string, values: Values): string {
  return textOf(fillText(text, values))
}

/**
 * A path of the API: every value is one part of it and cannot lead elsewhere.
 * @throws Fault `invalid`
 */
export function filledPath(path: string, values: Values): string {
  return path.replaceAll(place, (_, inner: string) => {
    const value = textOf(known(inner, values))
    if (value === '' || value.split('/').some((part) => part === '.' || part === '..')) {
      throw invalid({ [inner.trim()]: `'${value}' cannot be a part of a path` })
    }
    return encodeURIComponent(value)
  })
}

function known(inner: string, values: Values): Value {
  const found = name.exec(inner)?.[1] ?? inner.trim()
  const value = values.get(found)
  if (value === undefined) throw invalid({ [found]: 'the plan has no such variable, or no step has recorded it yet' })
  return value
}

export function textOf(value: Value): string {
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
}
