/**
 * Lays our descriptions beside a contract: the methods we serve, their parameters, bounds and rights against
 * those the contract publishes, and prints every difference.
 *
 *     node tools/conformance.ts <contract.json> [--bounds]
 *
 * The contract is a JSON array of methods in the words of `rest/describe.ts`. It is read from wherever it is, because it
 * belongs to somebody else. A bound of ours where the contract has none is no mistake (every parameter here
 * has one) and is shown with `--bounds` only.
 */
import { readFileSync } from 'node:fs'
import { allEndpoints } from '#api/root.ts'
import { describe, type MethodDescription } from '#rest/describe.ts'

/** A schema in the words of the contract. */
export type Words = Readonly<Record<string, unknown>>

export interface ContractMethod {
  readonly path: string
  readonly method: string
  readonly params: Readonly<Record<string, Words>>
  readonly returns: Words
  readonly permissions: Words | null
  readonly proxyto?: string
  readonly allowtoken?: false
  readonly extraParams?: true
}

export interface Difference {
  /** `missing`: the contract has it; `extra`: only we have it; `bound`: only we bound it; `differs`: both say something. */
  readonly kind: 'missing' | 'extra' | 'bound' | 'differs'
  /** `PUT /access/acl` */
  readonly method: string
  /** Parameter, then key of its property string; empty for the method itself. */
  readonly place: string
  readonly text: string
}

type Found = Omit<Difference, 'method'>

/** Differences of the methods we serve; our own branch has no counterpart. */
export function differencesOf(ours: readonly MethodDescription[], contract: readonly ContractMethod[]): Difference[] {
  return ours
    .filter(({ own }) => own !== true)
    .flatMap((ourMethod) => {
      const { method: name, path } = ourMethod
      const theirs = contract.find((one) => one.method === name && one.path === path)
      const found = theirs ? methodDifferences(ourMethod, theirs) : [difference('extra', '', 'is no method there')]
      return found.map((one) => ({ ...one, method: `${name} ${path}` }))
    })
}

function difference(kind: Difference['kind'], place: string, text: string): Found {
  return { kind, place, text }
}

function methodDifferences(ours: MethodDescription, theirs: ContractMethod): Found[] {
  return [
    ...setDifferences('', ours.params, given(theirs)),
    ...valueDifference('', 'permissions', rightsOf(ours.permissions), rightsOf(theirs.permissions)),
    ...valueDifference('', 'proxyto', ours.proxyto, theirs.proxyto),
    ...valueDifference('', 'allowtoken', ours.allowtoken, theirs.allowtoken),
    ...valueDifference('', 'extraParams', ours.extraParams, theirs.extraParams),
    ...valueDifference('', 'type of the reply', ours.returns.type, theirs.returns.type),
  ]
}

/** What stands in the path is given, whatever the schema says. */
function given({ path, params }: ContractMethod): Record<string, Words> {
  return Object.fromEntries(
    Object.entries(params).map(([name, schema]) => {
      const { optional: _, ...others } = schema
      return [name, path.includes(`{${name}}`) ? others : schema]
    }),
  )
}

/** What can be compared of a permission: not the prose, not the order of privileges. */
function rightsOf(permissions: Words | null): unknown {
  if (permissions === null) return 'root@pam'
  const { moreInProse: _, description: __, check, ...others } = permissions
  return check === undefined ? others : { ...others, check: expression(check) }
}

function expression(check: unknown): unknown {
  if (!Array.isArray(check)) return check
  const [kind, path, privileges, ...others] = check as unknown[]
  if (kind !== 'perm' || !Array.isArray(privileges)) return (check as unknown[]).map(expression)
  const names = [...new Set(privileges.map(String))].toSorted()
  // One of one is all of them.
  return names.length === 1 && others[0] === 'any' ? [kind, path, names] : [kind, path, names, ...others]
}

/** Parameters, or the keys of a property string. */
function setDifferences(
  place: string,
  ours: Readonly<Record<string, Words>>,
  theirs: Readonly<Record<string, Words>>,
): Found[] {
  const at = (name: string) => (place === '' ? name : `${place}, ${name}`)
  const missing = Object.keys(theirs).filter((name) => !Object.hasOwn(ours, name))
  const extra = Object.keys(ours).filter((name) => !Object.hasOwn(theirs, name))
  const both = Object.entries(ours).filter(([name]) => Object.hasOwn(theirs, name))
  return [
    ...missing.map((name) => difference('missing', at(name), 'is missing')),
    ...extra.map((name) => difference('extra', at(name), 'is only ours')),
    ...both.flatMap(([name, schema]) => schemaDifferences(at(name), schema, theirs[name] ?? {})),
  ]
}

const facts = ['type', 'optional', 'default', 'requires', 'default_key', 'alias', 'keyAlias'] as const
const bounds = ['minimum', 'maximum', 'minLength', 'maxLength', 'pattern', 'format', 'enum'] as const

function schemaDifferences(place: string, ours: Words, contract: Words): Found[] {
  const theirs = plainly(contract)
  return [
    ...facts.flatMap((word) => valueDifference(place, word, ours[word], theirs[word])),
    ...bounds.flatMap((word) => boundDifference(place, word, ours[word], theirs[word])),
    ...(isWords(ours.items) && isWords(theirs.items)
      ? schemaDifferences(`${place}, item`, ours.items, theirs.items)
      : []),
  ]
}

/** The number of a guest is written there as a format, here as its bounds. */
function plainly(theirs: Words): Words {
  if (theirs.format !== 'pve-vmid' || theirs.type !== 'integer') return theirs
  const { format: _, ...others } = theirs
  return { ...others, minimum: 100, maximum: 999_999_999 }
}

function boundDifference(place: string, word: string, ours: unknown, theirs: unknown): Found[] {
  if (ours !== undefined && theirs === undefined) return [difference('bound', place, `${word} ${told(ours)}`)]
  if (isWords(ours) && isWords(theirs)) return setDifferences(place, onlyWords(ours), onlyWords(theirs))
  if (word === 'pattern') return patternDifference(place, ours, theirs)
  return valueDifference(place, word, sorted(ours), sorted(theirs))
}

function patternDifference(place: string, ours: unknown, theirs: unknown): Found[] {
  const isSame = typeof ours === 'string' && typeof theirs === 'string' && bare(ours) === bare(theirs)
  return isSame ? [] : valueDifference(place, 'pattern', ours, theirs)
}

/** Without what makes no difference in a pattern that must match the whole text: anchors, groups around nothing else. */
function bare(pattern: string): string {
  const plain = pattern
    .replaceAll('{,', '{0,')
    .replaceAll(/\\([@/])/g, '$1')
    .replaceAll(/\[[^\]]*\]/g, sortedClass)
    .replaceAll(/\^(?![^[]*\])|\$/g, '')
    .replaceAll('(?:', '(')
  return unwrapped(plain.replaceAll(/\(([^()|]*)\)(?![?*+{])/g, '$1'))
}

function sortedClass(text: string): string {
  const parts = text.slice(1, -1).match(/[a-zA-Z0-9]-[a-zA-Z0-9]|\\[a-z]|\\?./g) ?? []
  return `[${parts
    .map((part) => part.replace(/^\\(?=[^a-z])/, ''))
    .toSorted()
    .join('')}]`
}

/** Without a group around the whole. */
function unwrapped(pattern: string): string {
  if (!pattern.startsWith('(') || !pattern.endsWith(')')) return pattern
  let depth = 0
  for (let at = 0; at < pattern.length; at += 1) {
    if (pattern[at] === '(') depth += 1
    if (pattern[at] === ')') depth -= 1
    if (depth === 0 && at < pattern.length - 1) return pattern
  }
  return unwrapped(pattern.slice(1, -1))
}

function valueDifference(place: string, word: string, ours: unknown, theirs: unknown): Found[] {
  if (told(asNumber(ours)) === told(asNumber(theirs))) return []
  return [difference('differs', place, `${word}: ours ${told(ours)}, contract ${told(theirs)}`)]
}

/** A truth is written as true or as 1. */
function asNumber(value: unknown): unknown {
  return typeof value === 'boolean' ? Number(value) : value
}

/** The order of an enumeration says nothing. */
function sorted(value: unknown): unknown {
  return Array.isArray(value) ? value.map(String).toSorted() : value
}

function told(value: unknown): string {
  return value === undefined ? 'nothing' : JSON.stringify(value)
}

function isWords(value: unknown): value is Words {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function onlyWords(format: Words): Record<string, Words> {
  return Object.fromEntries(Object.entries(format).filter((entry): entry is [string, Words] => isWords(entry[1])))
}

/** One line for the same difference in several methods. */
export function linesOf(differences: readonly Difference[]): string[] {
  const methods = new Map<string, string[]>()
  for (const { kind, method, place, text } of differences) {
    const line = `${kind.padEnd(8)}${place === '' ? 'the method' : place}: ${text}`
    methods.set(line, [...(methods.get(line) ?? []), method])
  }
  return [...methods].map(([line, names]) => `${line}\n        in ${names.join(', ')}`)
}

if (import.meta.main) {
  const [file, ...options] = process.argv.slice(2)
  if (file === undefined) throw new Error('usage: node tools/conformance.ts <contract.json> [--bounds]')
  const contract = JSON.parse(readFileSync(file, 'utf8')) as readonly ContractMethod[]
  const ours = describe(allEndpoints)
  const all = differencesOf(ours, contract)
  const shown = options.includes('--bounds') ? all : all.filter(({ kind }) => kind !== 'bound')
  for (const line of linesOf(shown)) console.log(line)
  const served = ours.filter(({ own }) => own !== true).length
  console.log(`${served} of ${contract.length} methods served, ${shown.length} differences`)
  process.exitCode = shown.length === 0 ? 0 : 1
}
