/**
 * Pools as values: names for sets of guests and storages, to give rights on all of them at once.
 *
 * A guest is in one pool at most, a storage may be in several. Pools nest by name (`a/b` is in `a`), up to three
 * levels; a pool that holds anything, pools included, is not deleted. Every change is a function from all pools to
 * all pools, so that moving a guest is one act.
 */
import { Fault, missing } from '#base/fault.ts'

export interface Pool {
  readonly comment?: string
  readonly vms: readonly number[]
  readonly storages: readonly string[]
}

/** By name, `a` or `a/b`. */
export type Pools = ReadonlyMap<string, Pool>

export interface PoolChange {
  readonly comment?: string | undefined
  readonly vms?: readonly number[] | undefined
  readonly storages?: readonly string[] | undefined
  /** Take these out instead of putting them in. */
  readonly isRemoval?: boolean | undefined
  /** Guests may come from another pool. */
  readonly mayMove?: boolean | undefined
}

export function requirePool(pools: Pools, poolid: string): Pool {
  const pool = pools.get(poolid)
  if (!pool) throw missing('pool', poolid)
  return pool
}

/** @throws Fault `conflict`: `pool 'x' already exists`; `missing` without its parent */
export function created(pools: Pools, poolid: string, comment?: string): Pools {
  if (pools.has(poolid)) throw new Fault('conflict', `pool '${poolid}' already exists`)
  const parent = poolid.split('/').slice(0, -1).join('/')
  if (parent !== '' && !pools.has(parent)) {
    throw new Fault('missing', `parent '${parent}' of pool '${poolid}' does not exist`, { remedy: 'Create it first.' })
  }
  return withPool(pools, poolid, { vms: [], storages: [], ...(comment === undefined ? {} : { comment }) })
}

/** @throws Fault `conflict` when a member is there already, or in another pool; `missing` when one to remove is not */
export function updated(pools: Pools, poolid: string, change: PoolChange): Pools {
  const { comment, vms = [], storages = [], isRemoval = false, mayMove = false } = change
  const before = requirePool(pools, poolid)
  const noted = comment === undefined ? before : { ...before, comment }
  if (isRemoval) return withPool(pools, poolid, without(noted, vms, storages))
  for (const storage of storages) {
    if (before.storages.includes(storage)) throw new Fault('conflict', `Storage '${storage}' is already a pool member`)
  }
  const others = vms.reduce((all, vmid) => takenFromOthers(all, poolid, vmid, mayMove), pools)
  return withPool(others, poolid, {
    ...noted,
    vms: unique([...noted.vms, ...vms]).toSorted((a, b) => a - b),
    storages: unique([...noted.storages, ...storages]).toSorted(),
  })
}

/** @throws Fault `conflict` when the pool holds anything */
export function deleted(pools: Pools, poolid: string): Pools {
  const { vms, storages } = requirePool(pools, poolid)
  const child = [...pools.keys()].find((name) => name.startsWith(`${poolid}/`))
  const content =
    (vms.length > 0 && 'contains VMs') ||
    (storages.length > 0 && 'contains storages') ||
    (child !== undefined && `contains pool '${child}'`)
  if (content) {
    throw new Fault('conflict', `pool '${poolid}' is not empty (${content})`, { remedy: 'Take its members out first.' })
  }
  return new Map([...pools].filter(([name]) => name !== poolid))
}

/** The one pool a guest is in. */
export function poolOf(pools: Pools, vmid: number): string | undefined {
  return [...pools].find(([, { vms }]) => vms.includes(vmid))?.[0]
}

/** Paths of the members (`/vms/100`, `/storage/local`) with the pools they are in. */
export function membership(pools: Pools): ReadonlyMap<string, readonly string[]> {
  const found = new Map<string, string[]>()
  for (const [poolid, { vms, storages }] of pools) {
    for (const path of [...vms.map((vmid) => `/vms/${vmid}`), ...storages.map((name) => `/storage/${name}`)]) {
      found.set(path, [...(found.get(path) ?? []), poolid])
    }
  }
  return found
}

function without(pool: Pool, vms: readonly number[], storages: readonly string[]): Pool {
  const strangeGuest = vms.find((vmid) => !pool.vms.includes(vmid))
  if (strangeGuest !== undefined) throw new Fault('missing', `VM ${strangeGuest} is not a pool member`)
  const strange = storages.find((name) => !pool.storages.includes(name))
  if (strange !== undefined) throw new Fault('missing', `Storage '${strange}' is not a pool member`)
  return {
    ...pool,
    vms: pool.vms.filter((vmid) => !vms.includes(vmid)),
    storages: pool.storages.filter((name) => !storages.includes(name)),
  }
}

function takenFromOthers(pools: Pools, target: string, vmid: number, mayMove: boolean): Pools {
  const current = poolOf(pools, vmid)
  if (current === undefined) return pools
  if (current === target) throw new Fault('conflict', `VM ${vmid} is already a pool member`)
  if (!mayMove) {
    throw new Fault('conflict', `VM ${vmid} belongs already to pool '${current}' and 'allow-move' is not set`)
  }
  return withPool(pools, current, without(requirePool(pools, current), [vmid], []))
}

function withPool(pools: Pools, poolid: string, pool: Pool): Pools {
  return new Map([...pools, [poolid, pool]])
}

function unique<T>(values: readonly T[]): T[] {
  return [...new Set(values)]
}
