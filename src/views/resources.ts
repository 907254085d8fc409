/** Everything there is, in one list: nodes, guests and storages, as far as the caller may see them. */
import { array, boolean, enumOf, integer, number, object, optional, string } from '#base/schema/schema.ts'
import type { Static } from '#base/schema/schema.ts'
import { vmid } from '#base/schema/standard.ts'
import type { NodeFacts } from '#cluster/node-facts.ts'
import type { GuestStatus } from '#guests/guest.ts'
import type { GuestService } from '#guests/service.ts'
import { membership, type Pools } from '#pools/pool.ts'
import type { PoolService } from '#pools/service.ts'
import type { StorageService } from '#storage/service.ts'
import { itemOf, visibleGuests } from './guest-list.ts'
import { nodeList } from './node-status.ts'
import { nodeStorages, type StorageItem } from './storage-list.ts'
import type { May } from './volume-access.ts'

export const resourceTypes = ['vm', 'storage', 'node', 'sdn'] as const

const count = (description: string) => optional(integer({ description }))
const text = (description: string) => optional(string({ description }))

export const resource = object({
  id: string({ description: 'Unique: `qemu/100`, `node/n`, `storage/n/s`.' }),
  type: enumOf(['node', 'storage', 'pool', 'qemu', 'lxc', 'openvz', 'sdn', 'network']),
  node: text('Node it is on.'),
  vmid: optional(vmid),
  name: text('Name of the guest.'),
  status: text('running, stopped, online, available, …'),
  storage: text('Name of the storage.'),
  content: text('What the storage holds.'),
  plugintype: text('Kind of storage.'),
  pool: text('Pool the guest is in.'),
  tags: text('Tags of the guest.'),
  lock: text('What keeps the guest from being changed.'),
  hastate: text('State in high availability.'),
  level: text('Support level of the node.'),
  shared: optional(boolean({ description: 'The storage is the same on every node.' })),
  template: optional(boolean({ description: 'The guest is a template.' })),
  cpu: optional(number({ description: 'Share of processors in use, 0 to 1.' })),
  maxcpu: optional(number({ description: 'Processors.' })),
  mem: count('Memory in use, in bytes.'),
  memhost: count('Memory the node spends on the guest, in bytes.'),
  maxmem: count('Memory in bytes.'),
  disk: count('Disk space in use, in bytes.'),
  maxdisk: count('Disk space in bytes.'),
  diskread: count('Bytes the guest has read.'),
  diskwrite: count('Bytes the guest has written.'),
  netin: count('Bytes the guest has received.'),
  netout: count('Bytes the guest has sent.'),
  uptime: count('Seconds since its start.'),
})
export type Resource = Static<typeof resource>
export const resources = array(resource)

export interface ResourceSources {
  readonly settings: { readonly node: string }
  readonly node: NodeFacts
  readonly guests: Pick<GuestService, 'list'>
  readonly storage: Pick<StorageService, 'list' | 'get' | 'status' | 'featuresOf'>
  readonly pools: Pick<PoolService, 'all' | 'get'>
}

export async function visibleResources(
  sources: ResourceSources,
  type: (typeof resourceTypes)[number] | undefined,
  may: May,
): Promise<Resource[]> {
  const { node } = sources.settings
  const wants = (one: string) => type === undefined || type === one
  const [pools, guests, nodes, storages] = await Promise.all([
    sources.pools.all(),
    wants('vm') ? visibleGuests(sources.guests, may) : [],
    wants('node') ? nodeList(sources.node, node, may) : [],
    wants('storage') ? nodeStorages(sources.storage, { node }, may) : [],
  ])
  const poolsOf = membership(pools)
  return [
    ...guests.map((guest) =>
      guestResource(guest, node, poolsOf.size === 0 ? undefined : poolsOf.get(`/vms/${guest.vmid}`)?.[0]),
    ),
    ...nodes.map((one): Resource => ({ ...one, type: 'node' })),
    ...storages.map((storage) => storageResource(storage, node)),
    ...(type === undefined ? await poolResources(pools, may) : []),
  ]
}

async function poolResources(pools: Pools, may: May): Promise<Resource[]> {
  const names = [...pools.keys()].toSorted()
  const allowed = await Promise.all(names.map((pool) => may(`/pool/${pool}`, 'Pool.Audit')))
  return names.filter((_, at) => allowed[at]).map((pool) => ({ id: `/pool/${pool}`, type: 'pool', pool }))
}

/** Of guests that lie still, as in `guest-list.ts`. */
const rowsOfStill = new WeakMap<GuestStatus, Resource>()

function guestResource(guest: GuestStatus, node: string, pool: string | undefined): Resource {
  const known = rowsOfStill.get(guest)
  if (known && known.pool === pool && known.node === node) return known
  const row = makeRow(guest, node, pool)
  if (Object.isFrozen(guest)) rowsOfStill.set(guest, Object.freeze(row))
  return row
}

function makeRow(guest: GuestStatus, node: string, pool: string | undefined): Resource {
  const { cpus, pid: _, serial: __, ...facts } = itemOf(guest)
  return {
    id: `${guest.kind}/${guest.vmid}`,
    type: guest.kind,
    node,
    template: guest.isTemplate,
    ...facts,
    maxcpu: cpus,
    pool,
  }
}

function storageResource(storage: StorageItem, node: string): Resource {
  return {
    id: `storage/${node}/${storage.storage}`,
    type: 'storage',
    node,
    storage: storage.storage,
    status: storage.active === true ? 'available' : 'unknown',
    content: storage.content,
    plugintype: storage.type,
    shared: storage.shared,
    disk: storage.used,
    maxdisk: storage.total,
  }
}
