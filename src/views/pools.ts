/** Pools with their members, as the API shows them. */
import { array, object, optional, string, type Static } from '#base/schema/schema.ts'
import type { Pool } from '#pools/pool.ts'
import type { PoolService } from '#pools/service.ts'
import { type Resource, resource, type ResourceSources, visibleResources } from './resources.ts'
import type { May } from './volume-access.ts'

export const poolTypes = ['qemu', 'lxc', 'storage'] as const
type PoolType = (typeof poolTypes)[number]

const comment = optional(string({ description: 'Note.' }))
const members = array(resource, { description: 'Guests and storages in the pool.' })

export const poolDetail = object({ comment, members })
export const poolItem = object({
  poolid: string({ description: 'Name of the pool.' }),
  comment,
  members: optional(members),
})

/** Pools the caller may look at, by name. */
export async function visiblePools(pools: PoolService, may: May): Promise<Static<typeof poolItem>[]> {
  const all = [...(await pools.all())].toSorted(([a], [b]) => (a < b ? -1 : 1))
  const allowed = await Promise.all(all.map(([poolid]) => may(`/pool/${poolid}`, 'Pool.Audit')))
  return all
    .filter((_, at) => allowed[at])
    .map(([poolid, { comment: note }]) => ({ poolid, ...(note === undefined ? {} : { comment: note }) }))
}

/** @throws Fault `missing`: `pool 'x' does not exist` */
export async function poolWithMembers(
  sources: ResourceSources,
  poolid: string,
  type?: PoolType,
): Promise<Static<typeof poolDetail>> {
  const pool = await sources.pools.get(poolid)
  // Who may look at a pool may look at what is in it.
  const all = await visibleResources(sources, undefined, async () => true)
  return {
    ...(pool.comment === undefined ? {} : { comment: pool.comment }),
    members: all.filter((one) => isMember(pool, one) && (type === undefined || one.type === type)),
  }
}

function isMember(pool: Pool, { type, vmid, storage }: Resource): boolean {
  if (type === 'storage') return storage !== undefined && pool.storages.includes(storage)
  return vmid !== undefined && pool.vms.includes(vmid)
}
