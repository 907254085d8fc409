/**
 * The bounds of a whole API: for each parameter of each endpoint and each of its rules, a call as root that
 * breaks this one rule and no other must be a 400 that names the parameter. Nothing is ever executed,
 * because nothing passes the check; so this may run against a real node.
 */
import type { Properties } from '#base/schema/schema.ts'
import { familiesIn } from '#rest/describe.ts'
import { bugFinding, told } from './rights.ts'
import { type Caller, callOf, type Described, gather, isInPath, type Known, outside, samplesOf } from './samples.ts'

export interface FuzzFacts {
  readonly asRoot: Caller
  readonly known: Known
}

/** Longer texts do not fit into a request line. */
const longestInTarget = 20_000

/** @returns what is wrong, one sentence each; empty is good */
export async function fuzzFindings(endpoints: readonly Described[], facts: FuzzFacts): Promise<string[]> {
  const cases = endpoints.flatMap((endpoint) => casesOf(endpoint, facts.known))
  return gather(cases, async ({ endpoint, name, value, why, values }) => {
    const reply = await facts.asRoot(callOf(endpoint, values))
    const errors = reply.body.errors
    const isNamed = typeof errors === 'object' && errors !== null && Object.hasOwn(errors, name)
    if (reply.status === 400 && isNamed) return []
    const shown = JSON.stringify(value ?? null).slice(0, 60)
    const wrong = bugFinding(reply) ?? `answers ${told(reply)} instead of 400 naming it`
    return [`${endpoint.method} ${endpoint.path}: '${name}' = ${shown} (${why}) ${wrong}`]
  })
}

interface Case {
  readonly endpoint: Described
  readonly name: string
  readonly value: unknown
  readonly why: string
  readonly values: Readonly<Record<string, unknown>>
}

function casesOf(endpoint: Described, known: Known): Case[] {
  const good = samplesOf(endpoint.params, known)
  const wrong = Object.entries(withoutMiddles(endpoint.params)).flatMap(([name, schema]) =>
    outside(schema)
      .filter(({ value }) => !isInPath(endpoint, name) || fitsPath(value))
      .map(({ value, why }) => ({ endpoint, name, value, why, values: { ...good, [name]: value } })),
  )
  const missing = Object.entries(endpoint.params)
    .filter(([name, schema]) => !schema.isOptional && !isInPath(endpoint, name))
    .map(([name]) => {
      const { [name]: _, ...values } = good
      return { endpoint, name, value: undefined, why: 'missing', values }
    })
  const unknown = {
    endpoint,
    name: 'no-such-parameter',
    value: 'x',
    why: 'unknown',
    values: { ...good, 'no-such-parameter': 'x' },
  }
  return [...wrong, ...missing, ...(takesUnknown(endpoint) ? [] : [unknown])]
}

/** Of a family whose members look alike, the first and the last. */
function withoutMiddles(params: Properties): Properties {
  const families = familiesIn(params)
  const stemOf = (name: string) => /^(.*\D)\d+$/.exec(name)?.[1] ?? ''
  return Object.fromEntries(
    Object.entries(params).filter(([name]) => {
      const [stem, index] = [stemOf(name), Number(/\d+$/.exec(name)?.[0] ?? 0)]
      return !families.has(stem) || index === 0 || params[`${stem}${index + 1}`] === undefined
    }),
  )
}

function takesUnknown(endpoint: Described & { readonly allowsExtra?: boolean }): boolean {
  return endpoint.allowsExtra ?? false
}

/** An empty segment or one with a slash would be another path. */
function fitsPath(value: unknown): boolean {
  const text = String(value as string)
  return text !== '' && !text.includes('/')
}

/** Parameters somebody forgot to bound: numbers without both ends, texts of any length. */
export function unboundedParameters(endpoints: readonly Described[]): string[] {
  return endpoints.flatMap((endpoint) =>
    Object.entries(endpoint.params).flatMap(([name, { type, minimum, maximum, maxLength, enum: values, items }]) => {
      const where = `${endpoint.method} ${endpoint.path}: '${name}'`
      const inTarget = endpoint.method === 'GET' || endpoint.method === 'DELETE' || isInPath(endpoint, name)
      const subject = type === 'array' && items ? items : { type, minimum, maximum, maxLength, enum: values }
      if (subject.type === 'integer' || subject.type === 'number') {
        return subject.minimum === undefined || subject.maximum === undefined
          ? [`${where} has no minimum or no maximum`]
          : []
      }
      if (subject.type !== 'string' || subject.enum) return []
      if (subject.maxLength === undefined) return [`${where} may be of any length`]
      return inTarget && subject.maxLength > longestInTarget ? [`${where} may be longer than a request line`] : []
    }),
  )
}
