/**
 * Finds the endpoint of a method and path, and the parameters the path carries.
 *
 * The path is percent-decoded *before* it is split on `/`, so `%2F` is a slash, and empty segments vanish,
 * so `//` and a trailing `/` are harmless: clients in the field send all of these. A literal segment wins
 * over `{name}`, and a last `{name*}` takes what is left, slashes included. Routes are compiled once into
 * a tree; two endpoints for one method and shape are a mistake found at start, not at the first request.
 * Rejected: a list of regular expressions, whose cost grows with the number of endpoints.
 */
import { Fault, invalid } from '#base/fault.ts'

export type RawParams = Readonly<Record<string, unknown>>

/** What the router needs to know of an endpoint. */
export interface Routable {
  readonly method: string
  readonly path: string
}

export interface Match<E> {
  readonly endpoint: E
  readonly params: Readonly<Record<string, string>>
}

export interface Router<E> {
  /**
   * @param path as sent, still percent-encoded, without query
   * @throws Fault `invalid` when the path is not percent-encoded UTF-8
   */
  readonly find: (method: string, path: string) => Match<E> | undefined
}

interface Leaf<E> {
  readonly endpoint: E
  /** Names of the variable segments, in order. */
  readonly names: readonly string[]
}

interface Branch<E> {
  readonly literal: Map<string, Branch<E>>
  variable?: Branch<E>
  rest?: Branch<E>
  readonly leaves: Map<string, Leaf<E>>
}

const emptyBranch = <E>(): Branch<E> => ({ literal: new Map(), leaves: new Map() })

/** @throws Error when two endpoints claim the same method and shape, or `{name*}` is not last. */
export function createRouter<E extends Routable>(endpoints: readonly E[]): Router<E> {
  const root = emptyBranch<E>()
  for (const endpoint of endpoints) plant(root, endpoint)
  return {
    find(method, path) {
      const found = walk(root, segmentsOf(path), 0, [])
      const leaf = found?.branch.leaves.get(method)
      if (!found || !leaf) return undefined
      const params: Record<string, string> = {}
      for (const [at, name] of leaf.names.entries()) params[name] = found.values[at] ?? ''
      return { endpoint: leaf.endpoint, params }
    },
  }
}

function plant<E extends Routable>(root: Branch<E>, endpoint: E): void {
  const names: string[] = []
  let branch = root
  let isClosed = false
  for (const segment of endpoint.path.split('/').filter(Boolean)) {
    if (isClosed) throw new Error(`${endpoint.path}: a {name*} must be the last segment`)
    const [, name, star] = /^\{([\w-]+)(\*?)\}$/.exec(segment) ?? []
    if (name === undefined) branch = childOf(branch.literal, segment)
    else if (star === '*') branch = branch.rest ??= emptyBranch()
    else branch = branch.variable ??= emptyBranch()
    if (name !== undefined) names.push(name)
    isClosed = star === '*'
  }
  const before = branch.leaves.get(endpoint.method)
  if (before) throw new Error(`${endpoint.method} ${endpoint.path} and ${before.endpoint.path} are the same route`)
  branch.leaves.set(endpoint.method, { endpoint, names })
}

function childOf<E>(children: Map<string, Branch<E>>, segment: string): Branch<E> {
  const child = children.get(segment) ?? emptyBranch<E>()
  children.set(segment, child)
  return child
}

interface Found<E> {
  readonly branch: Branch<E>
  readonly values: readonly string[]
}

/** The most literal branch that has any endpoint at all; the method is looked up afterwards. */
function walk<E>(
  branch: Branch<E>,
  segments: readonly string[],
  at: number,
  values: readonly string[],
): Found<E> | undefined {
  const segment = segments[at]
  if (segment === undefined) return branch.leaves.size > 0 ? { branch, values } : undefined
  const literal = branch.literal.get(segment)
  const byName = literal && walk(literal, segments, at + 1, values)
  if (byName) return byName
  const byValue = branch.variable && walk(branch.variable, segments, at + 1, [...values, segment])
  if (byValue) return byValue
  return branch.rest && { branch: branch.rest, values: [...values, segments.slice(at).join('/')] }
}

/** The decoded, non-empty segments of a path. @throws Fault `invalid` */
export function segmentsOf(path: string): string[] {
  const text = path.includes('%') ? decoded(path) : path
  // oxlint-disable-next-line no-control-regex -- none of these occurs in a name, and all confuse logs and C programs.
  if (/[\x00-\x1f\x7f]/.test(text)) throw new Fault('invalid', 'the path contains a control character')
  return text.split('/').filter(Boolean)
}

function decoded(path: string): string {
  try {
    return decodeURIComponent(path)
  } catch (cause) {
    throw new Fault('invalid', 'the path is not percent-encoded UTF-8', { cause })
  }
}

/**
 * One set of raw parameters. The query wins over the body; a path parameter may be repeated in either
 * with the same value, because some clients do, but never with another one.
 * @throws Fault `invalid` naming each parameter that contradicts the path
 */
export function mergeParams(path: Readonly<Record<string, string>>, query: RawParams, body: RawParams): RawParams {
  const raw: Record<string, unknown> = { ...body, ...query }
  const errors: Record<string, string> = {}
  for (const [name, value] of Object.entries(path)) {
    const repeated = Object.hasOwn(raw, name) ? raw[name] : undefined
    const isSame =
      repeated === undefined || repeated === null || repeated === value || `${repeated as string}` === value
    if (!isSame) errors[name] = 'duplicate parameter (already defined in URI) with conflicting values'
    raw[name] = value
  }
  if (Object.keys(errors).length > 0) throw invalid(errors)
  return raw
}
