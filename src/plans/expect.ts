/**
 * What a reply must show, and where in it: `status: running`, `'[vmid=101].status': { is: stopped }`.
 *
 * Matchers are words, not expressions: no pattern is run over what a guest or a node says.
 */
import { fill, filledText, textOf, type Values } from './template.ts'
import { isMap, type Value } from './value.ts'

export const matchers = ['is', 'not', 'contains', 'one-of', 'at-least', 'at-most', 'exists', 'count'] as const
export type Matcher = (typeof matchers)[number]

export interface Expectation {
  readonly path: string
  readonly matcher: Matcher
  readonly wanted: Value
}

export function readExpectations(value: Value, complain: (text: string) => void): Expectation[] {
  if (!isMap(value)) {
    complain('what is expected is a map from places in the reply to what must be there')
    return []
  }
  return Object.entries(value).flatMap(([path, wanted]): Expectation[] => {
    if (!isMap(wanted)) return [{ path, matcher: 'is', wanted }]
    return Object.entries(wanted).flatMap(([name, what]): Expectation[] => {
      const matcher = matchers.find((one) => one === name)
      if (!matcher) complain(`'${path}' is expected to '${name}': known are ${matchers.join(', ')}`)
      return matcher ? [{ path, matcher, wanted: what }] : []
    })
  })
}

/** @returns for each that does not hold, what was expected and what was found; empty is good */
export function unmet(expectations: readonly Expectation[], reply: Value, values: Values): string[] {
  return expectations.flatMap(({ path, matcher, wanted }) => {
    const place = filledText(path, values)
    const [want, found] = [fill(wanted, values), valueAt(reply, place)]
    if (holds(matcher, want, found)) return []
    const where = place === '' ? 'the reply' : place
    return found === undefined
      ? [`${where}: expected ${matcher} ${shown(want)}, found nothing`]
      : [`${where}: expected ${matcher} ${shown(want)}, found ${shown(found)}`]
  })
}

function shown(value: Value): string {
  return textOf(value).slice(0, 200)
}

function holds(matcher: Matcher, wanted: Value, found: Value | undefined): boolean {
  switch (matcher) {
    case 'exists':
      return (found !== undefined) === (wanted !== false)
    case 'is':
      return found !== undefined && isSame(found, wanted)
    case 'not':
      return found === undefined || !isSame(found, wanted)
    case 'contains':
      if (Array.isArray(found)) return (found as readonly Value[]).some((one) => isSame(one, wanted))
      return typeof found === 'string' && found.includes(textOf(wanted))
    case 'one-of':
      return found !== undefined && Array.isArray(wanted) && wanted.some((one: Value) => isSame(found, one))
    case 'at-least':
      return found !== undefined && Number(textOf(found)) >= Number(textOf(wanted))
    case 'at-most':
      return found !== undefined && Number(textOf(found)) <= Number(textOf(wanted))
    case 'count':
      return typeof found === 'object' && found !== null && Object.keys(found).length === Number(textOf(wanted))
    default:
      return matcher satisfies never
  }
}

/** The API says 1 for true, and numbers sometimes as text. */
function isSame(found: Value, wanted: Value): boolean {
  if (typeof wanted === 'boolean') return found === wanted || found === (wanted ? 1 : 0)
  return textOf(found) === textOf(wanted)
}

/** `data.0.name`, `[vmid=101].status`, `last.volid`, `[VM.Audit]` of a name with a dot; all of it with an empty path. */
export function valueAt(value: Value, path: string): Value | undefined {
  let found: Value | undefined = value
  for (const part of partsOf(path)) {
    if (found === undefined || found === null || typeof found !== 'object') return undefined
    const [, key, wanted = ''] = /^\[([^=\]]+)=([^\]]*)\]$/.exec(part) ?? []
    if (key !== undefined) {
      const rows: readonly Value[] = Array.isArray(found) ? found : Object.values(found)
      found = rows.find((row) => isMap(row) && row[key] !== undefined && textOf(row[key]) === wanted)
    } else if (part.startsWith('[')) found = ownOf(found, part.slice(1, -1))
    else if (Array.isArray(found)) found = (found as readonly Value[]).at(part === 'last' ? -1 : Number(part))
    else found = ownOf(found, part)
  }
  return found
}

function ownOf(value: Value, key: string): Value | undefined {
  return isMap(value) && Object.hasOwn(value, key) ? value[key] : undefined
}

function partsOf(path: string): string[] {
  return path.match(/\[[^\]]*\]|[^.[\]]+/g) ?? []
}
