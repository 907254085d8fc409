/** `/nodes/{node}/lxc/{vmid}/clone`: containers made from others. */
import { invalid } from '#base/fault.ts'
import { asVmid, splitVolumeId } from '#base/ids.ts'
import { boolean, number, optional, string } from '#base/schema/schema.ts'
import { nodeName, storageId, upid, vmid } from '#base/schema/standard.ts'
import { volumesIn } from '#guests/lxc/mountpoint.ts'
import { nicsOf } from '#guests/lxc/nic.ts'
import { cloneContainer } from '#operations/guest/clone-container.ts'
import { all, any, check, mayModify } from '#rest/endpoint.ts'
import { endpoint } from '../../call.ts'
import { guestAt } from '../qemu/at.ts'
import { requirePlaces, requireRight } from '../qemu/clone.ts'
import { requireRoot } from './rights.ts'

export const cloneEndpoints = [
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/lxc/{vmid}/clone',
    description: 'Make a container from another one that does not run; its files are copied.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      newid: { ...vmid, description: 'Number of the new container.' },
      hostname: optional(string({ description: 'Name of the new container.', format: 'dns-name', maxLength: 255 })),
      description: optional(string({ description: 'Notes of the new container.', maxLength: 8192 })),
      full: optional(boolean({ description: 'Copy all volumes; linked clones there are none.' })),
      snapname: optional(
        string({ description: 'Refused: clone this snapshot.', format: 'pve-configid', maxLength: 40 }),
      ),
      storage: optional(storageId),
      bwlimit: optional(
        number({ description: 'Ignored: files are copied as fast as they can be read.', minimum: 0, maximum: 2 ** 40 }),
      ),
      pool: optional(string({ description: 'Pool to put it in.', format: 'pve-poolid', maxLength: 255 })),
      target: optional(nodeName),
    },
    permission: all(
      check('VM.Clone', '/vms/{vmid}'),
      any(check('VM.Allocate', '/vms/{newid}'), check('VM.Allocate', '/pool/{pool}')),
    ),
    alsoNeeds: {
      says: 'Datastore.AllocateSpace where the volumes go, SDN.Use on the bridges of the container; with a pool, the right to change its permissions',
      of: ({ storage, pool }) => [
        ...(storage === undefined ? [] : [check('Datastore.AllocateSpace', `/storage/${storage}`)]),
        ...(pool === undefined ? [] : [mayModify(`/pool/${pool}`)]),
      ],
    },
    returns: upid,
    cli: { command: ['ct', 'clone'], positional: ['vmid', 'newid'], examples: ['ct clone 200 201 --hostname second'] },
    async handle(params, call) {
      const { vmid: id, newid, hostname, description, storage, pool, full, snapname, target } = params
      const { guests, settings, pools } = call.services
      const { options } = await guests.config(asVmid(id), 'lxc')
      if (full === false) throw invalid({ full: 'there are no linked clones of containers in this release' })
      if (snapname !== undefined) throw invalid({ snapname: 'containers have no snapshots in this release' })
      if (target !== undefined && target !== settings.node) throw invalid({ target: `there is no node '${target}'` })
      const volumes = storage === undefined ? volumesIn(options) : []
      await requirePlaces(
        call,
        volumes.map(({ volid }) => splitVolumeId(volid).storage),
      )
      for (const { bridge } of nicsOf(options)) {
        if (bridge !== undefined) await requireRight(call, `/sdn/zones/localnetwork/${bridge}`, 'SDN.Use')
      }
      // What root alone may give, a clone would hand on.
      const { lock: _, unprivileged, ...rest } = options
      requireRoot(call, { unprivileged: unprivileged !== '0' }, rest)
      if (pool !== undefined) await pools.get(pool)
      await guests.requireFree(asVmid(newid))
      return call.start(cloneContainer, { vmid: id, newid, hostname, description, storage, pool })
    },
  }),
]
