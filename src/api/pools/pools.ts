/** `/pools`: pools by query, and by path as older clients ask for them. */
import { Fault } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { splitList } from '#base/schema/formats.ts'
import { array, boolean, enumOf, nothing, optional, string } from '#base/schema/schema.ts'
import { anyone, check, mayModify, type Permission } from '#rest/endpoint.ts'
import { poolDetail, poolItem, poolTypes, poolWithMembers, visiblePools } from '#views/pools.ts'
import { type Call, endpoint } from '../call.ts'

const poolId = string({ description: 'Name of the pool, `a` or `a/b`.', format: 'pve-poolid', maxLength: 255 })
const comment = optional(string({ description: 'Note.', maxLength: 4096 }))
const changes = {
  poolid: poolId,
  comment,
  vms: optional(string({ description: 'Guests to put in.', format: 'pve-vmid-list', maxLength: 16_384 })),
  storage: optional(string({ description: 'Storages to put in.', format: 'pve-storage-id-list', maxLength: 16_384 })),
  delete: optional(boolean({ description: 'Take them out instead.', default: false })),
  'allow-move': optional(boolean({ description: 'Guests may come from another pool.', default: false })),
}
interface Changes {
  readonly poolid: string
  readonly comment?: string | undefined
  readonly vms?: string | undefined
  readonly storage?: string | undefined
  readonly delete?: boolean | undefined
  readonly 'allow-move'?: boolean | undefined
}

const mayAllocate = check('Pool.Allocate', '/pool/{poolid}')
const alsoNeeds = {
  says: 'the right to change permissions on each guest and storage put in or taken out',
  of: ({ vms, storage }: Changes): Permission[] => [
    ...splitList(vms ?? '').map((vmid) => mayModify(`/vms/${vmid}`)),
    ...splitList(storage ?? '').map((name) => mayModify(`/storage/${name}`)),
  ],
}

export const poolEndpoints = [
  endpoint({
    method: 'GET',
    path: '/pools',
    description: 'Pools the caller may look at; one pool with its members when it is named.',
    params: {
      poolid: optional(poolId),
      type: optional(enumOf(poolTypes, { description: 'Only members of this kind.', requires: 'poolid' })),
    },
    permission: anyone,
    returns: array(poolItem),
    cli: { command: ['pool', 'list'], columns: ['poolid', 'comment'], id: 'poolid' },
    isKept: true,
    async handle({ poolid, type }, { services, may }) {
      if (poolid === undefined) return visiblePools(services.pools, may)
      if (!(await may(`/pool/${poolid}`, 'Pool.Audit'))) {
        throw new Fault('denied', `Permission check failed (/pool/${poolid}, Pool.Audit)`)
      }
      return [{ poolid, ...(await poolWithMembers(services, poolid, type)) }]
    },
  }),
  endpoint({
    method: 'POST',
    path: '/pools',
    description: 'Create a pool.',
    params: { poolid: poolId, comment },
    permission: mayAllocate,
    returns: nothing,
    cli: { command: ['pool', 'create'], positional: ['poolid'], examples: ['pool create dev --comment "for trials"'] },
    handle: (params, { services }) => services.pools.create(params.poolid, params.comment).then(() => null),
  }),
  endpoint({
    method: 'PUT',
    path: '/pools',
    description: 'Change the note of a pool, put members in or take them out.',
    params: changes,
    permission: mayAllocate,
    alsoNeeds,
    returns: nothing,
    cli: {
      command: ['pool', 'set'],
      positional: ['poolid'],
      examples: ['pool set dev --vms 100,101 --storage fast', 'pool set dev --vms 100 --delete 1'],
    },
    handle: update,
  }),
  endpoint({
    method: 'DELETE',
    path: '/pools',
    description: 'Delete an empty pool, with its permissions.',
    params: { poolid: poolId },
    permission: mayAllocate,
    returns: nothing,
    cli: { command: ['pool', 'delete'], positional: ['poolid'] },
    handle: remove,
  }),
  endpoint({
    method: 'GET',
    path: '/pools/{poolid}',
    description: 'A pool with its members.',
    params: { poolid: poolId, type: optional(enumOf(poolTypes, { description: 'Only members of this kind.' })) },
    permission: check('Pool.Audit', '/pool/{poolid}'),
    returns: poolDetail,
    cli: { command: ['pool', 'show'], positional: ['poolid'], examples: ['pool show dev -o json'] },
    isKept: true,
    handle: ({ poolid, type }, { services }) => poolWithMembers(services, poolid, type),
  }),
  endpoint({
    method: 'PUT',
    path: '/pools/{poolid}',
    description: 'Change the note of a pool, put members in or take them out.',
    params: changes,
    permission: mayAllocate,
    alsoNeeds,
    returns: nothing,
    handle: update,
  }),
  endpoint({
    method: 'DELETE',
    path: '/pools/{poolid}',
    description: 'Delete an empty pool, with its permissions.',
    params: { poolid: poolId },
    permission: mayAllocate,
    returns: nothing,
    handle: remove,
  }),
]

async function update(params: Changes, { services }: Call): Promise<null> {
  const [vms, storages] = [splitList(params.vms ?? '').map(asVmid), splitList(params.storage ?? '')]
  if (params.delete !== true) {
    // A name that means nothing today would be a right on whatever bears it tomorrow.
    for (const vmid of vms) await services.guests.config(vmid, 'any')
    for (const name of storages) await services.storage.get(name)
  }
  await services.pools.update(params.poolid, {
    comment: params.comment,
    vms,
    storages,
    isRemoval: params.delete,
    mayMove: params['allow-move'],
  })
  return null
}

async function remove({ poolid }: { readonly poolid: string }, { services }: Call): Promise<null> {
  await services.pools.delete(poolid)
  await services.rights.forget(`/pool/${poolid}`)
  return null
}
