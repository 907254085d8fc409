/** `/nodes/{node}/qemu/{vmid}`: `clone`, `template`, `feature`. Virtual machines made from others. */
import { Fault, invalid } from '#base/fault.ts'
import { asVmid, splitVolumeId } from '#base/ids.ts'
import { array, boolean, enumOf, integer, object, optional, string } from '#base/schema/schema.ts'
import { nodeName, storageId, upid, vmid } from '#base/schema/standard.ts'
import type { Options } from '#guests/config.ts'
import { cloudInitVolumesIn } from '#guests/qemu/drive.ts'
import { nicsOf } from '#guests/qemu/nic.ts'
import { cloneGuest, planClone } from '#operations/guest/clone.ts'
import { hasFeature } from '#operations/guest/feature.ts'
import { requireTemplatable, templateGuest } from '#operations/guest/template.ts'
import { all, any, check, mayModify } from '#rest/endpoint.ts'
import type { Call } from '../../call.ts'
import { endpoint } from '../../call.ts'
import { diskNames, guestAt } from './at.ts'
import { mappingsIn } from './rights.ts'
import { snapshotName } from '../snapshots.ts'

export const cloneEndpoints = [
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/clone',
    description: 'Make a virtual machine from another one, or from its snapshot.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      newid: { ...vmid, description: 'Number of the new guest.' },
      name: optional(string({ description: 'Name of the new guest.', format: 'dns-name', maxLength: 253 })),
      description: optional(string({ description: 'Notes of the new guest.', maxLength: 8192 })),
      full: optional(boolean({ description: 'Copy all disks; otherwise link them to those of a template.' })),
      snapname: optional(snapshotName),
      storage: optional(storageId),
      format: optional(enumOf(['raw', 'qcow2', 'vmdk'], { description: 'Format of the copied disks.' })),
      bwlimit: optional(integer({ description: 'KiB per second when copying.', minimum: 0, maximum: 2 ** 40 })),
      pool: optional(string({ description: 'Pool to put the new guest in.', format: 'pve-poolid', maxLength: 255 })),
      target: optional(nodeName),
    },
    permission: all(
      check('VM.Clone', '/vms/{vmid}'),
      any(check('VM.Allocate', '/vms/{newid}'), check('VM.Allocate', '/pool/{pool}')),
    ),
    alsoNeeds: {
      says: 'Datastore.AllocateSpace where the disks go, SDN.Use on the bridges of the guest, Mapping.Use on its mappings; with a pool, the right to change its permissions',
      of: ({ storage, pool }) => [
        ...(storage === undefined ? [] : [check('Datastore.AllocateSpace', `/storage/${storage}`)]),
        ...(pool === undefined ? [] : [mayModify(`/pool/${pool}`)]),
      ],
    },
    returns: upid,
    cli: {
      command: ['vm', 'clone'],
      positional: ['vmid', 'newid'],
      examples: ['vm clone 9000 101 --name web', 'vm clone 100 102 --full 1 --storage local --snapname before'],
    },
    handle: startClone,
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/template',
    description: 'Make a stopped virtual machine a template, which others are cloned from.',
    proxyTo: 'node',
    params: { ...guestAt, disk: optional(enumOf(diskNames, { description: 'Make only this disk a base.' })) },
    permission: check('VM.Allocate', '/vms/{vmid}'),
    returns: upid,
    cli: { command: ['vm', 'template'], positional: ['vmid'], examples: ['vm template 9000'] },
    async handle(params, call) {
      const id = asVmid(params.vmid)
      requireTemplatable(id, await call.services.guests.config(id))
      return call.start(templateGuest, { vmid: id, disk: params.disk })
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/qemu/{vmid}/feature',
    description: 'Whether a virtual machine can have a snapshot, a linked clone or a copy made of it.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      feature: enumOf(['snapshot', 'clone', 'copy'], { description: 'What is to be made.' }),
      snapname: optional(snapshotName),
    },
    permission: check('VM.Audit', '/vms/{vmid}'),
    returns: object({
      hasFeature: boolean({ description: 'It can be made.' }),
      nodes: array(string({ description: 'Node it can be made on.' })),
    }),
    cli: { command: ['vm', 'feature'], positional: ['vmid', 'feature'], examples: ['vm feature 100 snapshot'] },
    async handle(params, { services }) {
      const config = await services.guests.config(asVmid(params.vmid))
      const has = await hasFeature(services.storage, config, {
        feature: params.feature,
        snapshot: params.snapname,
      })
      return { hasFeature: has, nodes: has ? [services.settings.node] : [] }
    },
  }),
]

interface CloneParams {
  readonly vmid: number
  readonly newid: number
  readonly name?: string | undefined
  readonly description?: string | undefined
  readonly full?: boolean | undefined
  readonly snapname?: string | undefined
  readonly storage?: string | undefined
  readonly format?: 'raw' | 'qcow2' | 'vmdk' | undefined
  readonly bwlimit?: number | undefined
  readonly pool?: string | undefined
  readonly target?: string | undefined
}

async function startClone(params: CloneParams, call: Call): Promise<string> {
  const { guests, pools, settings, storage: storages } = call.services
  const { vmid: source, newid, name, description, full, storage, bwlimit, pool, snapname: snapshot } = params
  if (params.pool !== undefined) await pools.get(params.pool)
  if (params.target !== undefined && params.target !== settings.node) {
    throw invalid({ target: `a clone stays on its node, '${settings.node}'` })
  }
  const format = writable(params.format)
  const config = await guests.config(asVmid(source))
  const plan = planClone(asVmid(source), config, { full, snapshot, storage, format })
  const volumes = [...plan.disks, ...cloudInitVolumesIn(plan.options)].map(({ volid }) => volid)
  await requirePlaces(call, storage === undefined ? volumes.map((volid) => splitVolumeId(volid).storage) : [])
  await requireBridges(call, plan.options)
  for (const path of mappingsIn(plan.options)) await requireRight(call, path, 'Mapping.Use')
  await guests.requireFree(asVmid(newid))
  if (storage !== undefined) await storages.requireContent(storage, 'images')
  const wish = { newid, name, description, full, snapshot, storage, format, bwlimit, pool }
  return call.start(cloneGuest, { vmid: source, ...wish })
}

/** @throws Fault `invalid` for the format nobody writes */
export function writable(format: 'raw' | 'qcow2' | 'vmdk' | undefined): 'raw' | 'qcow2' | undefined {
  if (format === 'vmdk') throw invalid({ format: "format 'vmdk' cannot be made: use raw or qcow2" })
  return format
}

/** Where the disks of the source are is known only here. */
export async function requirePlaces(call: Call, names: readonly string[]): Promise<void> {
  for (const name of new Set(names)) await requireRight(call, `/storage/${name}`, 'Datastore.AllocateSpace')
}

async function requireBridges(call: Call, options: Options): Promise<void> {
  for (const { bridge } of nicsOf(options)) {
    if (bridge !== undefined) await requireRight(call, `/sdn/zones/localnetwork/${bridge}`, 'SDN.Use')
  }
}

export async function requireRight(call: Call, path: string, privilege: string): Promise<void> {
  if (!(await call.may(path, privilege))) throw new Fault('denied', `Permission check failed (${path}, ${privilege})`)
}
