/**
 * `npm run conformance`: how much of the Proxmox VE API is served, for whom, and where it differs, printed and
 * written to `docs/reference/conformance.md`.
 *
 * Everything it says follows from the endpoints, from the contract beside the report, and from the calls real
 * clients made in the tests, which each test run leaves behind. New differences are put under "not yet reviewed" in
 * `differences.yaml`, and stay an error until somebody says why they are.
 */
import { existsSync, globSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { parse, stringify } from 'yaml'
import { allEndpoints } from '#api/root.ts'
import { describe, type MethodDescription } from '#rest/describe.ts'
import { type ContractMethod, differencesOf, linesOf } from './conformance.ts'
import { recordedCalls } from './recorded-calls.ts'

export const reference = join(import.meta.dirname, '../docs/reference')

export interface ReviewedDifferences {
  readonly why: string
  readonly differences: readonly string[]
}

export interface Facts {
  readonly ours: readonly MethodDescription[]
  readonly contract: readonly ContractMethod[]
  /** Which published client uses a method: by `GET /path`. */
  readonly uses: Readonly<Record<string, readonly string[]>>
  /** Which client called a method in our tests: by client. */
  readonly exercised: Readonly<Record<string, readonly string[]>>
  readonly reviewed: readonly ReviewedDifferences[]
}

const unreviewed = 'not yet reviewed'

export function readFacts(): Facts {
  const json = (name: string): unknown => JSON.parse(readFileSync(join(reference, name), 'utf8'))
  const { methods } = json('pve-clients.json') as { methods: Facts['uses'] }
  const optional = <T>(name: string, none: T): T =>
    existsSync(join(reference, name)) ? (parse(readFileSync(join(reference, name), 'utf8')) as T) : none
  return {
    ours: describe(allEndpoints).filter(({ own }) => own !== true),
    contract: json('pve-api.json') as readonly ContractMethod[],
    uses: methods,
    exercised: optional('exercised.yaml', {}),
    reviewed: optional('differences.yaml', []),
  }
}

/** Differences as lines; a bound of ours where the contract has none is no difference. */
export function currentDifferences({ ours, contract }: Pick<Facts, 'ours' | 'contract'>): string[] {
  return linesOf(differencesOf(ours, contract).filter(({ kind }) => kind !== 'bound')).map((line) =>
    line.replaceAll(/\s+/g, ' '),
  )
}

/** Lines that nobody reviewed, and reviewed ones that are no more. */
export function reviewOf({ reviewed, ...facts }: Facts): { readonly added: string[]; readonly gone: string[] } {
  const current = currentDifferences(facts)
  const known = new Set(reviewed.flatMap(({ why, differences }) => (why === unreviewed ? [] : differences)))
  return {
    added: current.filter((line) => !known.has(line)),
    gone: [...known].filter((line) => !current.includes(line)),
  }
}

export function areaOf(path: string): string {
  const [first = '', second = '', third = ''] = path.split('/').slice(1)
  if (first === 'cluster') return second === '' || second.startsWith('{') ? 'cluster' : `cluster/${second}`
  if (first !== 'nodes') return first
  const deep = ['qemu', 'lxc', 'storage', 'ceph', 'sdn', 'firewall', 'disks', 'network', 'replication', 'scan']
  return second === '{node}' && deep.includes(third) ? `nodes/${third}` : 'nodes'
}

const nameOf = ({ method, path }: { method: string; path: string }) => `${method} ${path}`

export function report(facts: Facts): string {
  const { ours, contract, uses, exercised, reviewed } = facts
  const served = new Set(ours.map(nameOf))
  const all = contract.map(nameOf)
  const count = (names: readonly string[]) => names.filter((name) => served.has(name)).length
  const areas = Map.groupBy(contract, ({ path }) => areaOf(path))
  const usedBy = (least: number) => all.filter((name) => (uses[name]?.length ?? 0) >= least)
  const callers = new Map<string, string[]>()
  for (const [client, names] of Object.entries(exercised))
    for (const name of names) callers.set(name, [...(callers.get(name) ?? []), client])
  const wanted = usedBy(2).filter((name) => !served.has(name))
  return [
    '# Conformance with the Proxmox VE 9.2 API',
    '',
    'Written by `npm run conformance`; do not edit. The contract is [pve-api.json](pve-api.json): names, types, bounds and',
    'rights as published. Who uses what is [pve-clients.json](pve-clients.json). What differs, and why, is',
    '[differences.yaml](differences.yaml).',
    '',
    `**${count(all)} of ${all.length} methods are served.** ${callers.size} of them were called by a client that is not ours in the tests.`,
    '',
    table(
      ['area', 'methods', 'served'],
      [...areas].map(([area, methods]) => [area, methods.length, count(methods.map(nameOf))]),
    ),
    '',
    '## By the number of clients that use a method',
    '',
    table(
      ['used by at least', 'methods', 'served'],
      [1, 2, 3, 5, 8].map((least) => [`${least}`, usedBy(least).length, count(usedBy(least))]),
    ),
    '',
    '## Differences',
    '',
    table(
      ['why', 'differences'],
      reviewed.map(({ why, differences }) => [why, differences.length]),
    ),
    '',
    '## Called by real clients in the tests',
    '',
    table(
      ['method', 'clients'],
      [...callers]
        .toSorted(([a], [b]) => (a < b ? -1 : 1))
        .map(([name, clients]) => [`\`${name}\``, clients.join(', ')]),
    ),
    '',
    '## Used by two clients or more, and not served yet',
    '',
    ...[...Map.groupBy(wanted, (name) => areaOf(name.split(' ')[1] ?? ''))].map(
      ([area, names]) => `- ${area}: ${names.map((name) => `\`${name}\``).join(', ')}`,
    ),
    '',
  ].join('\n')
}

function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map((_, at) => (at === 0 ? '---' : '--:'))), ...rows.map(line)].join('\n')
}

/** What the last runs of the tests left, in place of what was known of those clients. */
function withRecordedCalls(known: Facts['exercised'], contract: readonly ContractMethod[]): Facts['exercised'] {
  const methods = new Set(contract.map(nameOf))
  const recorded = globSync('*.json', { cwd: recordedCalls }).map((file): [string, string[]] => {
    const names = JSON.parse(readFileSync(join(recordedCalls, file), 'utf8')) as string[]
    return [basename(file, '.json'), names.filter((name) => methods.has(name)).toSorted()]
  })
  const merged = Object.entries({ ...known, ...Object.fromEntries(recorded) })
  return Object.fromEntries(merged.toSorted(([a], [b]) => (a < b ? -1 : 1)))
}

/** Gone ones leave the list; new ones stand apart until somebody says why. */
function reviewedAgain(facts: Facts): ReviewedDifferences[] {
  const { added, gone } = reviewOf(facts)
  const kept = facts.reviewed
    .filter(({ why }) => why !== unreviewed)
    .map(({ why, differences }) => ({ why, differences: differences.filter((line) => !gone.includes(line)) }))
    .filter(({ differences }) => differences.length > 0)
  return added.length === 0 ? kept : [...kept, { why: unreviewed, differences: added }]
}

if (import.meta.main) {
  const before = readFacts()
  const exercised = withRecordedCalls(before.exercised, before.contract)
  const facts = { ...before, exercised, reviewed: reviewedAgain(before) }
  const yaml = (value: unknown) => stringify(value, { lineWidth: 0 })
  writeFileSync(join(reference, 'exercised.yaml'), yaml(facts.exercised))
  writeFileSync(join(reference, 'differences.yaml'), yaml(facts.reviewed))
  const text = report(facts)
  writeFileSync(join(reference, 'conformance.md'), text)
  console.log(text)
  const { added } = reviewOf(facts)
  if (added.length > 0) {
    console.error(`${added.length} differences are not reviewed: say why in docs/reference/differences.yaml.`)
    process.exitCode = 1
  }
}
