/** `/nodes/{node}/lxc/{vmid}`: `clone`, `template`, `feature`. Containers made from others. */
import { invalid } from '#base/fault.ts'
import { asVmid, splitVolumeId } from '#base/ids.ts'
import { boolean, enumOf, nothing, number, object, optional, string } from '#base/schema/schema.ts'
import { nodeName, storageId, upid, vmid } from '#base/schema/standard.ts'
import { nicsOf } from '#guests/lxc/nic.ts'
import { cloneContainer, planClone, requireLinks } from '#operations/guest/clone-container.ts'
import { hasFeature } from '#operations/guest/feature.ts'
import { requireTemplatable, templateContainer } from '#operations/guest/template.ts'
import { all, any, check, mayModify } from '#rest/endpoint.ts'
import { type Call, endpoint } from '../../call.ts'
import { guestAt } from '../qemu/at.ts'
import { requirePlaces, requireRight } from '../qemu/clone.ts'
import { snapshotName } from '../snapshots.ts'
import { requireRoot } from './rights.ts'

export const cloneEndpoints = [
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/lxc/{vmid}/clone',
    description: 'Make a container from another one, or from its snapshot.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      newid: { ...vmid, description: 'Number of the new container.' },
      hostname: optional(string({ description: 'Name of the new container.', format: 'dns-name', maxLength: 255 })),
      description: optional(string({ description: 'Notes of the new container.', maxLength: 8192 })),
      full: optional(boolean({ description: 'Copy all volumes; otherwise link them to those of a template.' })),
      snapname: optional(snapshotName),
      storage: optional(storageId),
      bwlimit: optional(number({ description: 'KiB per second when copying.', minimum: 0, maximum: 2 ** 40 })),
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
    cli: {
      command: ['ct', 'clone'],
      positional: ['vmid', 'newid'],
      examples: ['ct clone 9001 201 --hostname web', 'ct clone 200 202 --full 1 --storage local --snapname before'],
    },
    handle: startClone,
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/lxc/{vmid}/template',
    description: 'Make a stopped container a template, which others are cloned from.',
    proxyTo: 'node',
    params: guestAt,
    permission: check('VM.Allocate', '/vms/{vmid}'),
    returns: nothing,
    cli: { command: ['ct', 'template'], positional: ['vmid'], examples: ['ct template 9001'] },
    async handle({ vmid: id }, call) {
      requireTemplatable(asVmid(id), await call.services.guests.config(asVmid(id), 'lxc'), 'lxc')
      await call.start(templateContainer, { vmid: id })
      return null
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/lxc/{vmid}/feature',
    description: 'Whether a container can have a snapshot, a linked clone or a copy made of it.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      feature: enumOf(['snapshot', 'clone', 'copy'], { description: 'What is to be made.' }),
      snapname: optional(snapshotName),
    },
    permission: check('VM.Audit', '/vms/{vmid}'),
    returns: object({ hasFeature: boolean({ description: 'It can be made.' }) }),
    cli: { command: ['ct', 'feature'], positional: ['vmid', 'feature'], examples: ['ct feature 200 snapshot'] },
    async handle({ vmid: id, feature, snapname: snapshot }, { services }) {
      const config = await services.guests.config(asVmid(id), 'lxc')
      return { hasFeature: await hasFeature(services.storage, config, { feature, snapshot, kind: 'lxc' }) }
    },
  }),
]

interface CloneParams {
  readonly vmid: number
  readonly newid: number
  readonly hostname?: string | undefined
  readonly description?: string | undefined
  readonly full?: boolean | undefined
  readonly snapname?: string | undefined
  readonly storage?: string | undefined
  readonly bwlimit?: number | undefined
  readonly pool?: string | undefined
  readonly target?: string | undefined
}

async function startClone(params: CloneParams, call: Call): Promise<string> {
  const { vmid: id, newid, hostname, description, storage, bwlimit, pool, full, snapname: snapshot, target } = params
  const { guests, settings, pools, storage: storages } = call.services
  if (pool !== undefined) await pools.get(pool)
  if (target !== undefined && target !== settings.node) {
    throw invalid({ target: `a clone stays on its node, '${settings.node}'` })
  }
  const config = await guests.config(asVmid(id), 'lxc')
  const wish = { vmid: id, hostname, description, full, snapshot, storage, bwlimit, pool }
  const { options, volumes, isLinked } = planClone(config, wish)
  if (isLinked) await requireLinks(storages, volumes)
  await requirePlaces(call, storage === undefined ? volumes.map((volid) => splitVolumeId(volid).storage) : [])
  for (const { bridge } of nicsOf(options)) {
    if (bridge !== undefined) await requireRight(call, `/sdn/zones/localnetwork/${bridge}`, 'SDN.Use')
  }
  // What root alone may give, a clone would hand on.
  const { unprivileged, ...rest } = options
  requireRoot(call, { unprivileged: unprivileged !== '0' }, rest)
  await guests.requireFree(asVmid(newid))
  if (storage !== undefined) await storages.requireContent(storage, 'rootdir')
  return call.start(cloneContainer, { ...wish, newid })
}
