/**
 * Names for devices and folders of the nodes, so that who may use them can be a matter of rights, and a guest means the
 * same wherever it runs: `usb/stick` is one device on this node and another on that.
 */
import { createHash } from 'node:crypto'
import { Fault, invalid, missing } from '#base/fault.ts'
import { readPropertyString } from '#base/schema/property-string.ts'
import {
  array,
  boolean,
  integer,
  object,
  optional,
  type PropertyFormat,
  type Static,
  string,
} from '#base/schema/schema.ts'
import { Documents } from '#store/document.ts'
import type { Store } from '#store/store.ts'

export const mappingKinds = ['pci', 'usb', 'dir'] as const
export type MappingKind = (typeof mappingKinds)[number]

const node = { schema: string({ description: 'Node.', format: 'pve-node', maxLength: 64 }) }
const numbers = /[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}/
const pciPath =
  /(?:[a-f0-9]{4,}:[a-f0-9]{2}:[a-f0-9]{2}(?:\.[a-f0-9])?;)*[a-f0-9]{4,}:[a-f0-9]{2}:[a-f0-9]{2}(?:\.[a-f0-9])?/
const note = { schema: optional(string({ description: 'Note.', maxLength: 4096 })) }

/** What one entry of a mapping says, by kind. */
export const mappingFormats: Readonly<Record<MappingKind, PropertyFormat>> = {
  pci: {
    description: note,
    id: { schema: string({ description: 'Vendor and device, `8086:10d3`.', pattern: numbers }) },
    iommugroup: { schema: optional(integer({ description: 'Group it is in.', minimum: -1, maximum: 65_535 })) },
    node,
    path: { schema: string({ description: 'Addresses, separated by `;`.', pattern: pciPath, maxLength: 400 }) },
    'subsystem-id': { schema: optional(string({ description: 'Vendor and number of the card.', pattern: numbers })) },
  },
  usb: {
    description: note,
    id: { schema: string({ description: 'Vendor and product, `0951:1666`.', pattern: numbers }) },
    node,
    path: { schema: optional(string({ description: 'Port, `1-2.3`.', pattern: /\d+-\d+(?:\.\d+)*/, maxLength: 64 })) },
  },
  dir: {
    node,
    path: { schema: string({ description: 'Absolute path.', pattern: /\/[^,=;]*/, maxLength: 1024 }) },
  },
}

export interface Mapping {
  readonly description?: string | undefined
  readonly map: readonly string[]
  readonly mdev?: boolean | undefined
  readonly 'live-migration-capable'?: boolean | undefined
}

export type MappingChange = { readonly [K in keyof Mapping]?: Mapping[K] | undefined }

export interface NamedMapping extends Mapping {
  readonly id: string
  readonly digest: string
}

const shape = object({
  description: optional(string()),
  map: array(string()),
  mdev: optional(boolean()),
  'live-migration-capable': optional(boolean()),
})
type Stored = Static<typeof shape>

/** One entry, read. */
export type MapEntry = Readonly<Record<string, string | number | boolean>>

export class Mappings {
  readonly #documents: Readonly<Record<MappingKind, Documents<Stored>>>

  constructor({ store }: { readonly store: Store }) {
    const of = (kind: MappingKind) =>
      new Documents<Stored>(store, {
        noun: `${kind === 'dir' ? 'directory' : kind.toUpperCase()} mapping`,
        prefix: `cluster/mapping/${kind}/`,
        schema: shape,
      })
    this.#documents = { pci: of('pci'), usb: of('usb'), dir: of('dir') }
  }

  async list(kind: MappingKind): Promise<NamedMapping[]> {
    return (await this.#documents[kind].list()).map(({ name, value }) => named(name, value))
  }

  async find(kind: MappingKind, id: string): Promise<NamedMapping | undefined> {
    const found = await this.#documents[kind].find(id)
    return found && named(id, found.value)
  }

  /** @throws Fault `missing` */
  async get(kind: MappingKind, id: string): Promise<NamedMapping> {
    const found = await this.find(kind, id)
    if (!found) throw missing(`${kind} mapping`, id)
    return found
  }

  /** @throws Fault `conflict` when there is one of that name, `invalid` naming an entry that contradicts another */
  async create(kind: MappingKind, id: string, mapping: Mapping): Promise<void> {
    requireSense(kind, mapping.map)
    await this.#documents[kind].create(id, stored(mapping))
  }

  /** @throws Fault `missing`, `invalid`; `conflict` when it is not what the digest says any more */
  async change(
    kind: MappingKind,
    id: string,
    set: MappingChange,
    { remove = [], digest }: { readonly remove?: readonly string[]; readonly digest?: string | undefined },
  ): Promise<void> {
    if (remove.includes('map')) throw invalid({ delete: "'map' cannot be deleted: delete the mapping" })
    if (set.map) requireSense(kind, set.map)
    await this.#documents[kind].update(id, (before) => {
      if (digest !== undefined && digest !== digestOf(before)) {
        throw new Fault('conflict', 'detected modified configuration - file changed by other user? Try again.')
      }
      const kept = Object.fromEntries(Object.entries(before).filter(([name]) => !remove.includes(name)))
      return stored({ map: before.map, ...kept, ...given(set) })
    })
  }

  /** Idempotent. */
  async delete(kind: MappingKind, id: string): Promise<void> {
    await this.#documents[kind].alter(id, () => undefined)
  }

  /** What the mapping means on a node; undefined when there is none of that name. */
  async entriesOn(kind: MappingKind, id: string, nodeName: string): Promise<MapEntry[] | undefined> {
    const mapping = await this.find(kind, id)
    return mapping && entriesOf(kind, mapping.map).filter((entry) => entry.node === nodeName)
  }
}

export function entriesOf(kind: MappingKind, map: readonly string[]): MapEntry[] {
  return map.map((text) => readPropertyString(mappingFormats[kind], text, 'map'))
}

/** Nothing is in a mapping twice, and a folder's name means one folder on each node. */
function requireSense(kind: MappingKind, map: readonly string[]): void {
  if (map.length === 0) throw invalid({ map: 'it has no entry' })
  const seen = new Set<string>()
  for (const entry of entriesOf(kind, map)) {
    const what = kind === 'dir' ? String(entry.node) : `${entry.node} ${entry.path ?? entry.id}`
    if (seen.has(what)) throw invalid({ map: `'${what}' is in it twice` })
    seen.add(what)
  }
}

function named(id: string, value: Stored): NamedMapping {
  return { id, ...value, digest: digestOf(value) }
}

function digestOf(value: Stored): string {
  const sorted = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1))
  return createHash('sha1').update(JSON.stringify(sorted)).digest('hex')
}

function stored({ description, map, mdev, 'live-migration-capable': live }: Mapping): Stored {
  return {
    map: [...map],
    ...(description === undefined ? {} : { description }),
    ...(mdev === undefined ? {} : { mdev }),
    ...(live === undefined ? {} : { 'live-migration-capable': live }),
  }
}

function given(set: MappingChange): Partial<Mapping> {
  return Object.fromEntries(Object.entries(set).filter(([, value]) => value !== undefined))
}
