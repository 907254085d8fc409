/** `/nodes/{node}/qemu/{vmid}`: `resize`, `move_disk`, `unlink`. What becomes of single disks. */
import { invalid } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { splitList } from '#base/schema/formats.ts'
import { boolean, enumOf, integer, nothing, optional, string } from '#base/schema/schema.ts'
import { storageId, upid, vmid } from '#base/schema/standard.ts'
import { requireDigest } from '#guests/config.ts'
import { unusedCount } from '#guests/kept-volumes.ts'
import { movedCloudInit } from '#operations/guest/cloud-init-drive.ts'
import { configureGuest } from '#operations/guest/configure.ts'
import { moveDisk, planMove } from '#operations/guest/move-disk.ts'
import { resizeDisk } from '#operations/guest/resize.ts'
import { check } from '#rest/endpoint.ts'
import { endpoint } from '../../call.ts'
import { diskName, diskNames, guestAt, skiplock } from './at.ts'
import { requirePlaces, writable } from './clone.ts'
import { changeNow } from './config.ts'
import { optionRightsSay, requireRoot, rightsToDelete } from './rights.ts'

const digest = optional(
  string({ description: 'Refuse when the configuration no longer has this SHA-1.', maxLength: 40 }),
)
const unusedNames = Array.from({ length: unusedCount }, (_, index) => `unused${index}`)
const movableDisk = enumOf([...diskNames, ...unusedNames], { description: 'Disk.' })

export const diskEndpoints = [
  endpoint({
    method: 'PUT',
    path: '/nodes/{node}/qemu/{vmid}/resize',
    description: 'Make a disk larger, also while the guest runs.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      skiplock,
      disk: diskName,
      size: string({
        description: 'Size in all, or with + how much more.',
        pattern: /\+?\d+(\.\d+)?[KMGT]?/,
        maxLength: 32,
      }),
      digest,
    },
    permission: check('VM.Config.Disk', '/vms/{vmid}'),
    returns: upid,
    cli: {
      command: ['vm', 'resize'],
      positional: ['vmid', 'disk', 'size'],
      examples: ['vm resize 100 scsi0 +5G', 'vm resize 100 scsi0 32G'],
    },
    async handle(params, call) {
      const { vmid: id, disk, size, skiplock: skipLock } = params
      requireRoot(call, params, {})
      await call.services.guests.config(asVmid(id))
      return call.start(resizeDisk, { vmid: id, disk, size, digest: params.digest, skipLock })
    },
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/move_disk',
    description: 'Move a disk to another storage or format, also while the guest runs.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      disk: movableDisk,
      storage: optional(storageId),
      format: optional(enumOf(['raw', 'qcow2', 'vmdk'], { description: 'Format of the new image.' })),
      delete: optional(boolean({ description: 'Destroy the old volume.', default: false })),
      digest,
      bwlimit: optional(integer({ description: 'KiB per second.', minimum: 0, maximum: 2 ** 40 })),
      'target-vmid': optional(vmid),
      'target-disk': optional(movableDisk),
      'target-digest': optional(string({ description: 'The same for the other guest.', maxLength: 40 })),
    },
    permission: check('VM.Config.Disk', '/vms/{vmid}'),
    alsoNeeds: {
      says: 'Datastore.AllocateSpace where the disk goes',
      of: ({ storage }) => (storage === undefined ? [] : [check('Datastore.AllocateSpace', `/storage/${storage}`)]),
    },
    returns: upid,
    cli: {
      command: ['vm', 'move-disk'],
      positional: ['vmid', 'disk', 'storage'],
      examples: ['vm move-disk 100 scsi0 fast --delete 1', 'vm move-disk 100 scsi0 local --format qcow2'],
    },
    async handle(params, call) {
      for (const name of ['target-vmid', 'target-disk', 'target-digest'] as const) {
        if (params[name] === undefined) continue
        throw invalid({ [name]: 'giving a disk to another guest is not supported by this release' })
      }
      const { vmid: id, disk, storage, bwlimit } = params
      const move = {
        disk,
        storage,
        format: writable(params.format),
        delete: params.delete,
        digest: params.digest,
        bwlimit,
      }
      const config = await call.services.guests.config(asVmid(id))
      requireDigest(config, params.digest)
      const set = movedCloudInit(config.options, move)
      if (set) {
        await requirePlaces(call, storage === undefined ? [] : [storage])
        return call.start(configureGuest, { vmid: id, change: { set, delete: [], revert: [] }, digest: params.digest })
      }
      const plan = await planMove(call.services.storage, config, move)
      await requirePlaces(call, [plan.storage])
      return call.start(moveDisk, { vmid: id, ...move })
    },
  }),
  endpoint({
    method: 'PUT',
    path: '/nodes/{node}/qemu/{vmid}/unlink',
    description: 'Take disks out of a virtual machine; with force, and when they are unused already, destroy them.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      idlist: string({ description: 'Disks to take out.', format: 'pve-configid-list', maxLength: 4096 }),
      force: optional(boolean({ description: 'Destroy their volumes too.' })),
    },
    permission: check('VM.Config.Disk', '/vms/{vmid}'),
    alsoNeeds: {
      says: optionRightsSay,
      of: ({ vmid, idlist }) => rightsToDelete(vmid, splitList(idlist)),
    },
    returns: nothing,
    cli: { command: ['vm', 'unlink'], positional: ['vmid', 'idlist'], examples: ['vm unlink 100 unused0'] },
    async handle({ vmid, idlist, force }, call) {
      await changeNow({ vmid, delete: idlist, force }, call)
      return null
    },
  }),
]
