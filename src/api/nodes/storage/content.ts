/** `/nodes/{node}/storage/{storage}/content`: the volumes in a storage. */
import { invalid } from '#base/fault.ts'
import { asVmid, asVolumeId } from '#base/ids.ts'
import { array, boolean, enumOf, integer, nothing, optional, refine, string } from '#base/schema/schema.ts'
import { nodeName, storageId, upid, vmid, volumeId } from '#base/schema/standard.ts'
import { isForeignArchive } from '#operations/backup/archive-file.ts'
import { backupAt, requireProtectable, unlimited, usualMost } from '#operations/backup/protect.ts'
import { annotateBackup } from '#operations/storage/annotate.ts'
import { copyRequest, copyVolume } from '#operations/storage/copy.ts'
import { deleteVolume } from '#operations/storage/delete.ts'
import { all, any, anyone, check, type Permission, rootOnly } from '#rest/endpoint.ts'
import { contentTypes, imageFormats, volumeAt } from '#storage/volume.ts'
import { allocationOf } from '#storage/wire.ts'
import { contentItem, storageContent, volumeDetails, volumeFacts } from '#views/storage-content.ts'
import { type Alternatives, toChange, toRead } from '#views/volume-access.ts'
import { endpoint } from '../../call.ts'
import { mayLook } from './storage.ts'

const volume = { node: nodeName, storage: storageId, volume: volumeId }
const size = string({ description: 'Size in KiB, or with suffix M or G.', pattern: /\d{1,15}[MG]?/, maxLength: 16 })

function permissions(alternatives: Alternatives): readonly Permission[] {
  return [any(...alternatives.map((each) => all(...each.map(({ path, privilege }) => check(privilege, path)))))]
}

export const readsVolume = {
  says: 'Datastore.Allocate on the storage; or, by kind of volume, the right to read the storage, VM.Config.Disk or VM.Backup on its guest',
  of: (params: { storage: string; volume: string }) => permissions(toRead(volumeAt(params.storage, params.volume))),
}
const changesVolume = {
  says: 'Datastore.Allocate on the storage; for backups also Datastore.AllocateSpace there with VM.Backup on the guest',
  of: (params: { storage: string; volume: string }) => permissions(toChange(volumeAt(params.storage, params.volume))),
}

export const contentEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/storage/{storage}/content',
    description: 'Volumes in a storage, as far as the caller may see them.',
    proxyTo: 'node',
    params: {
      node: nodeName,
      storage: storageId,
      content: optional(enumOf(contentTypes, { description: 'Only volumes of this content.' })),
      vmid: optional(vmid),
    },
    permission: mayLook,
    returns: array(contentItem),
    cli: {
      command: ['storage', 'content'],
      positional: ['storage'],
      columns: ['volid', 'content', 'format', 'size', 'used', 'vmid', 'ctime'],
      id: 'volid',
      examples: ['storage content local', 'storage content local --content iso -o id'],
    },
    handle: (params, { services, may }) => storageContent(services, params, may),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/storage/{storage}/content',
    description: 'Make an empty disk image and return its volume id.',
    proxyTo: 'node',
    params: {
      node: nodeName,
      storage: storageId,
      vmid,
      filename: string({ description: 'Its name, such as vm-100-disk-1 or vm-100-disk-1.qcow2.', maxLength: 255 }),
      size,
      format: optional(enumOf(imageFormats, { description: 'Its format.', requires: 'size' })),
    },
    permission: check('Datastore.AllocateSpace', '/storage/{storage}'),
    returns: string({ description: 'The new volume.' }),
    cli: {
      command: ['storage', 'allocate'],
      positional: ['storage', 'vmid', 'filename', 'size'],
      examples: ['storage allocate local 100 vm-100-disk-1.qcow2 4G'],
    },
    handle: (params, { services }) => services.storage.allocate(allocationOf({ ...params, vmid: asVmid(params.vmid) })),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/storage/{storage}/content/{volume*}',
    description: 'Facts about a volume.',
    proxyTo: 'node',
    params: volume,
    permission: anyone,
    alsoNeeds: readsVolume,
    returns: volumeDetails,
    handle: (params, { services }) => volumeFacts(services, volumeAt(params.storage, params.volume)),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/storage/{storage}/content/{volume*}',
    description: 'Copy a disk or a file to a name nothing has yet, here or on another storage.',
    proxyTo: 'node',
    params: {
      ...volume,
      target: string({ description: 'Name of the copy, as `storage:name`.', minLength: 1, maxLength: 1024 }),
      target_node: optional(refine(nodeName, { description: 'The node itself: copies stay on it.' })),
    },
    permission: rootOnly,
    returns: upid,
    cli: {
      command: ['storage', 'copy'],
      positional: ['storage', 'volume', 'target'],
      examples: [
        'storage copy local iso/debian.iso fast:iso/debian.iso',
        'storage copy local 100/vm-100-disk-0.qcow2 fast:101/vm-101-disk-0.raw',
      ],
    },
    handle({ node, storage, volume: name, target, target_node: other = node }, { start }) {
      if (other !== node) throw invalid({ target_node: `volumes are copied on node '${node}' only` })
      return start(copyVolume, copyRequest(volumeAt(storage, name), asVolumeId(target)))
    },
  }),
  endpoint({
    method: 'PUT',
    path: '/nodes/{node}/storage/{storage}/content/{volume*}',
    description: 'Change notes or protection of a backup.',
    proxyTo: 'node',
    params: {
      ...volume,
      notes: optional(string({ description: 'Notes; empty removes them.', maxLength: 65_536 })),
      protected: optional(boolean({ description: 'Refuse to remove it.' })),
    },
    permission: anyone,
    alsoNeeds: changesVolume,
    returns: nothing,
    cli: {
      command: ['backup', 'set'],
      positional: ['storage', 'volume'],
      examples: [
        'backup set local local:backup/vm/100/2026-01-01T00:00:00Z --protected 0',
        "backup set local local:backup/vm/100/2026-01-01T00:00:00Z --notes 'before the upgrade'",
      ],
    },
    async handle({ storage, volume: name, notes, protected: isProtected }, { services, may }) {
      const volid = volumeAt(storage, name)
      // An archive is never pruned, so protecting it takes no room from others.
      if (isProtected === true && !isForeignArchive(volid)) {
        const owns = await may(`/storage/${storage}`, 'Datastore.Allocate')
        await requireProtectable(services, backupAt(volid), owns ? unlimited : usualMost)
      }
      await annotateBackup(services, volid, { notes, protected: isProtected })
      return null
    },
  }),
  endpoint({
    method: 'DELETE',
    path: '/nodes/{node}/storage/{storage}/content/{volume*}',
    description: 'Destroy a volume.',
    proxyTo: 'node',
    params: {
      ...volume,
      delay: optional(integer({ description: 'Seconds to wait for the end of the task.', minimum: 1, maximum: 30 })),
    },
    permission: anyone,
    alsoNeeds: changesVolume,
    returns: optional(upid),
    cli: {
      command: ['storage', 'delete'],
      positional: ['storage', 'volume'],
      destroys: 'volume',
      examples: ['storage delete local local:iso/debian.iso --confirm local:iso/debian.iso'],
    },
    handle: (params, { start }) => start(deleteVolume, { volume: volumeAt(params.storage, params.volume) }),
  }),
]
