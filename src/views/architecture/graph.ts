/** What a node is made of, as a graph: parts in four lanes, and what each has to do with the others. */
import { array, boolean, enumOf, integer, object, optional, string, type Static } from '#base/schema/schema.ts'

/** From the bottom to the top. */
export const lanes = ['hardware', 'host', 'storage', 'guests'] as const
export type Lane = (typeof lanes)[number]

/** Kinds of parts, in the order they stand in their lane, each with its lane. */
export const partKinds = {
  processors: 'hardware',
  memory: 'hardware',
  disk: 'hardware',
  card: 'hardware',
  kernel: 'host',
  client: 'host',
  virtualization: 'host',
  qemu: 'host',
  lxc: 'host',
  lxcfs: 'host',
  daemon: 'host',
  front: 'host',
  state: 'host',
  task: 'host',
  storage: 'storage',
  datastore: 'storage',
  bridge: 'storage',
  vm: 'guests',
  ct: 'guests',
  volume: 'guests',
  nic: 'guests',
} as const satisfies Readonly<Record<string, Lane>>
export type PartKind = keyof typeof partKinds
export const kindNames = Object.keys(partKinds) as PartKind[]

/** Worst first: of several parts drawn as one, the worst is shown. */
export const partStates = ['failed', 'unknown', 'warning', 'ok', 'off'] as const
export type PartState = (typeof partStates)[number]

export const edgeTypes = ['runs on', 'stores on', 'connects to', 'backs up to', 'depends on'] as const
export type EdgeType = (typeof edgeTypes)[number]

/** How much is told: kinds of parts; each part; what guests are made of, too. */
export const levels = [1, 2, 3] as const

export const part = object({
  id: string({
    description: 'Its name in the graph, the same at every level that shows it: `vm/100`, `storage/local`.',
  }),
  lane: enumOf(lanes, { description: 'Layer it belongs to.' }),
  kind: enumOf(kindNames, { description: 'Kind of part.' }),
  name: optional(
    string({ description: 'Its own name; absent for what there is one of, and for several parts as one.' }),
  ),
  state: enumOf(partStates, { description: 'How it is; of several, how the worst one is.' }),
  detail: optional(string({ description: 'Why it is so, or what it is.' })),
  version: optional(string({ description: 'Version of the program.' })),
  count: optional(integer({ description: 'How many parts stand behind it, where it is more than one drawn as one.' })),
  isRest: optional(boolean({ description: 'It stands for those there was no room for.' })),
})
export type Part = Readonly<Static<typeof part>>

export const edge = object({
  from: string({ description: 'Part that needs the other one.' }),
  to: string({ description: 'The other one.' }),
  type: enumOf(edgeTypes, { description: 'What the first does with the second.' }),
})
export type Edge = Readonly<Static<typeof edge>>

export const architecture = object({
  node: string({ description: 'Name of the node.' }),
  level: integer({ description: 'How much is told, from 1 to 3.' }),
  parts: array(part),
  edges: array(edge),
})
export type Architecture = Readonly<Static<typeof architecture>>

export interface Graph {
  readonly parts: readonly Part[]
  readonly edges: readonly Edge[]
}

/** A part; its lane follows from its kind. */
export function partOf(
  kind: PartKind,
  name: string | undefined,
  rest: Pick<Part, 'state' | 'detail' | 'version'>,
): Part {
  const id = name === undefined ? kind : `${kind}/${name}`
  return { id, lane: partKinds[kind], kind, ...(name === undefined ? {} : { name }), ...rest }
}
