/** Less of a graph: kinds instead of parts, and never more than a reader can take in. Knows nothing of nodes. */
import { type Edge, type Graph, type Part, type PartKind, partKinds, partStates } from './graph.ts'

/** Parts of one kind that are shown one by one at most; the others are drawn as one. */
const shownOfKind = { 1: 1, 2: 12, 3: 60 } as const
/** What guests are made of is for those who look closely. */
const innermost: readonly PartKind[] = ['volume', 'nic']

/** Parts and edges in the order of their lanes, kinds and names: the same for the same state. */
export function graphAt(level: 1 | 2 | 3, { parts, edges }: Graph): Graph {
  const visible = parts.filter(({ kind }) => level === 3 || !innermost.includes(kind))
  const shown: Part[] = []
  const standsFor = new Map<string, string>()
  for (const kind of Object.keys(partKinds) as PartKind[]) {
    const all = visible.filter((part) => part.kind === kind).toSorted(byName)
    const most = shownOfKind[level]
    // A kind is a kind at the first level, however few there are: the picture stays the same as the site grows.
    const isWhole = all.every(({ name }) => name === undefined) || (level > 1 && all.length <= most)
    const single = isWhole ? all : level === 1 ? [] : all.slice(0, most - 1)
    const rest = all.slice(single.length)
    shown.push(...single)
    if (rest.length === 0) continue
    const one = together(kind, rest, level > 1)
    shown.push(one)
    for (const { id } of rest) standsFor.set(id, one.id)
  }
  const ids = new Set(shown.map(({ id }) => id))
  const drawn = new Map<string, Edge>()
  const owners = Map.groupBy(edges, ({ to }) => to)
  for (const { from, to, type } of edges) {
    // What a disk or card of a guest has to do with others, its guests have.
    const isInside = level < 3 && isInnermost(from)
    for (const owner of isInside ? (owners.get(from) ?? []).map((edge) => edge.from) : [from]) {
      const ends = { from: standsFor.get(owner) ?? owner, to: standsFor.get(to) ?? to, type }
      if (ends.from === ends.to || !ids.has(ends.from) || !ids.has(ends.to)) continue
      drawn.set(`${ends.from} ${ends.to} ${type}`, ends)
    }
  }
  const inOrder = [...drawn].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, edge]) => edge)
  return { parts: shown, edges: inOrder }
}

function isInnermost(id: string): boolean {
  return innermost.some((kind) => id.startsWith(`${kind}/`))
}

function together(kind: PartKind, parts: readonly Part[], isRest: boolean): Part {
  const counts = partStates.flatMap((state) => {
    const count = parts.filter((one) => one.state === state).length
    return count === 0 ? [] : [{ state, count }]
  })
  const details = counts.map(({ state, count }) => `${count} ${state}`).join(', ')
  return {
    id: isRest ? `${kind}/*` : kind,
    lane: partKinds[kind],
    kind,
    state: counts[0]?.state ?? 'unknown',
    detail: details,
    count: parts.length,
    ...(isRest ? { isRest: true } : {}),
  }
}

const inNumericalOrder = new Intl.Collator('en', { numeric: true })

function byName(a: Part, b: Part): number {
  const [first = '', second = ''] = [a.name, b.name]
  return inNumericalOrder.compare(first, second) || (first < second ? -1 : 1)
}
