/** `/nodes/{node}/lxc/{vmid}`: `resize`, `move_volume`. What becomes of single volumes. */
import { invalid } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { boolean, enumOf, number, optional, string } from '#base/schema/schema.ts'
import { storageId, upid, vmid } from '#base/schema/standard.ts'
import { unusedCount } from '#guests/kept-volumes.ts'
import { mountCount } from '#guests/lxc/mountpoint.ts'
import { moveVolume, planVolumeMove } from '#operations/guest/move-volume.ts'
import { planReassign, reassignVolume } from '#operations/guest/reassign-volume.ts'
import { resizeVolume } from '#operations/guest/resize-container.ts'
import { check } from '#rest/endpoint.ts'
import { type Call, endpoint } from '../../call.ts'
import { guestAt } from '../qemu/at.ts'

const volumeName = enumOf(['rootfs', ...Array.from({ length: mountCount }, (_, index) => `mp${index}`)], {
  description: 'Which volume.',
})

const digest = optional(string({ description: 'Only when the configuration is still that.', maxLength: 40 }))
const movableVolume = enumOf(
  [
    'rootfs',
    ...Array.from({ length: mountCount }, (_, index) => `mp${index}`),
    ...Array.from({ length: unusedCount }, (_, index) => `unused${index}`),
  ],
  { description: 'Volume.' },
)

export const volumeEndpoints = [
  endpoint({
    method: 'PUT',
    path: '/nodes/{node}/lxc/{vmid}/resize',
    description:
      'Make a volume of a container larger, also while it runs. The file system in an image follows at once where the node may grow what is mounted, and else when the container starts next.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      disk: volumeName,
      size: string({
        description: 'Its size, or with + how much more.',
        pattern: /\+?\d+(\.\d+)?[KMGT]?/,
        maxLength: 32,
      }),
      digest,
    },
    permission: check('VM.Config.Disk', '/vms/{vmid}'),
    returns: upid,
    cli: {
      command: ['ct', 'resize'],
      positional: ['vmid', 'disk', 'size'],
      examples: ['ct resize 200 rootfs +2G', 'ct resize 200 mp0 16G'],
    },
    async handle({ vmid: id, disk, size, digest: wanted }, call) {
      await call.services.guests.config(asVmid(id), 'lxc')
      return call.start(resizeVolume, { vmid: id, disk, size, digest: wanted })
    },
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/lxc/{vmid}/move_volume',
    description: 'Move a volume of a stopped container to another storage, or give it to another container.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      volume: movableVolume,
      storage: optional(storageId),
      delete: optional(boolean({ description: 'Destroy the old volume.', default: false })),
      digest,
      bwlimit: optional(number({ description: 'KiB per second when copying.', minimum: 0, maximum: 2 ** 40 })),
      'target-vmid': optional({ ...vmid, description: 'Container the volume is given to.' }),
      'target-volume': optional({ ...movableVolume, description: 'What it is called there; else as here.' }),
      'target-digest': optional(string({ description: 'The same for the other container.', maxLength: 40 })),
    },
    permission: check('VM.Config.Disk', '/vms/{vmid}'),
    alsoNeeds: {
      says: 'Datastore.AllocateSpace where the volume goes; VM.Config.Disk on the container it is given to',
      of: ({ storage, 'target-vmid': target }) => [
        ...(storage === undefined ? [] : [check('Datastore.AllocateSpace', `/storage/${storage}`)]),
        ...(target === undefined ? [] : [check('VM.Config.Disk', `/vms/${target}`)]),
      ],
    },
    returns: upid,
    cli: {
      command: ['ct', 'move-volume'],
      positional: ['vmid', 'volume', 'storage'],
      examples: ['ct move-volume 200 rootfs fast --delete 1', 'ct move-volume 200 mp0 --target-vmid 201'],
    },
    handle: startMove,
  }),
]

interface MoveParams {
  readonly vmid: number
  readonly volume: string
  readonly storage?: string | undefined
  readonly delete?: boolean | undefined
  readonly digest?: string | undefined
  readonly bwlimit?: number | undefined
  readonly 'target-vmid'?: number | undefined
  readonly 'target-volume'?: string | undefined
  readonly 'target-digest'?: string | undefined
}

async function startMove(params: MoveParams, call: Call): Promise<string> {
  const { vmid: id, volume, storage, digest: wanted, 'target-vmid': target } = params
  const { guests, storage: storages } = call.services
  const config = await guests.config(asVmid(id), 'lxc')
  if (target !== undefined && storage === undefined) return startReassign({ ...params, target }, call)
  if (storage === undefined || target !== undefined) {
    throw invalid({ storage: `give either 'storage' or 'target-vmid', and not both` })
  }
  const move = { vmid: id, volume, storage, delete: params.delete, digest: wanted, bwlimit: params.bwlimit }
  planVolumeMove(config, move)
  await storages.requireContent(storage, 'rootdir')
  return call.start(moveVolume, move)
}

async function startReassign(params: MoveParams & { readonly target: number }, call: Call): Promise<string> {
  const { vmid: id, volume, target, 'target-volume': targetVolume = volume, digest: wanted } = params
  const { guests } = call.services
  if (params.delete === true) throw invalid({ delete: 'a volume that is given away leaves nothing to destroy' })
  const move = { vmid: id, volume, target, targetVolume, digest: wanted, targetDigest: params['target-digest'] }
  planReassign(await guests.config(asVmid(id), 'lxc'), await guests.config(asVmid(target), 'lxc'), move)
  return call.start(reassignVolume, move)
}
