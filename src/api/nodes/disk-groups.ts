/** `/nodes/{node}/disks/{directory,lvm,lvmthin,zfs,initgpt,wipedisk}`: what disks are made into, and blank ones. */
import { array, boolean, enumOf, object, optional, string } from '#base/schema/schema.ts'
import { nodeName, storageId, upid } from '#base/schema/standard.ts'
import { requireOurs } from '#disks/guard.ts'
import { createDirectory, removeDirectory } from '#operations/disks/directory.ts'
import { createVolumeGroup, removeVolumeGroup } from '#operations/disks/lvm.ts'
import { initDisk, wipeDisk } from '#operations/disks/whole-disk.ts'
import { type Permission, check, rootOnly } from '#rest/endpoint.ts'
import { groupsOf, groupTree, thinPoolItem, thinPoolsOf, zfsPoolItem, zfsPoolsOf } from '#views/disk-groups.ts'
import { endpoint } from '../call.ts'

const at = { node: nodeName }
const mayAudit = check('Sys.Audit', '/')
const mayModify = check('Sys.Modify', '/')
const device = string({ description: 'Path of the disk.', pattern: /\/dev\/[-a-zA-Z0-9/_.:+@]+/, maxLength: 256 })
const disk = string({ description: 'Path of the disk.', pattern: /\/dev\/[a-zA-Z0-9/]+/, maxLength: 256 })
const flag = (description: string) => optional(boolean({ description, default: false }))
const name = { ...storageId, description: 'Name, also of the storage when there is one.' }
const added = { add_storage: flag('Also make it a storage.') }
const removal = {
  'cleanup-config': flag('Also remove the storages that lie there.'),
  'cleanup-disks': flag('Also wipe the disks, so that they can be used for something else.'),
}
const storagesToo = {
  says: 'Datastore.Allocate on /storage to add or remove storages',
  of: (params: { add_storage?: boolean | undefined; 'cleanup-config'?: boolean | undefined }): Permission[] =>
    params.add_storage || params['cleanup-config'] ? [check('Datastore.Allocate', '/storage')] : [],
}

export const diskGroupEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/disks/directory',
    description: 'Disks that are mounted as folders.',
    proxyTo: 'node',
    params: at,
    permission: mayAudit,
    returns: array(
      object({
        device: string({ description: 'Path that stays the same in whatever order disks are found.' }),
        path: string({ description: 'Where it is mounted.' }),
        type: string({ description: 'Kind of file system.' }),
        options: string({ description: 'Options it is mounted with.' }),
        unitfile: string({ description: 'Who mounts it at boot: the daemon itself, from its own record.' }),
      }),
    ),
    cli: { command: ['disk', 'directories'], columns: ['path', 'device', 'type', 'options'], id: 'path' },
    async handle(_, { services }) {
      return (await services.directories.list()).map(({ uuid, type, path, name: key }) => {
        return {
          device: `/dev/disk/by-uuid/${uuid}`,
          path,
          type,
          options: 'defaults',
          unitfile: `disks/directories/${key}`,
        }
      })
    },
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/disks/directory',
    description: 'Make a file system on an empty disk and mount it, now and at every start.',
    proxyTo: 'node',
    params: {
      ...at,
      name,
      device,
      filesystem: optional({ ...enumOf(['ext4', 'xfs'], { description: 'Kind of file system.' }), default: 'ext4' }),
      ...added,
    },
    permission: mayModify,
    alsoNeeds: storagesToo,
    returns: upid,
    cli: {
      command: ['disk', 'create', 'directory'],
      positional: ['name', 'device'],
      examples: ['disk create directory fast /dev/sdb --add_storage'],
    },
    async handle(params, call) {
      const path = await requireOurs(call.services.settings, params.device)
      const { filesystem: fileSystem = 'ext4', add_storage: addStorage = false } = params
      return call.start(createDirectory, { device: path, name: params.name, fileSystem, addStorage })
    },
  }),
  endpoint({
    method: 'DELETE',
    path: '/nodes/{node}/disks/directory/{name}',
    description: 'Unmount a disk for good. What is on it stays unless it is to be wiped.',
    proxyTo: 'node',
    params: { ...at, name, ...removal },
    permission: mayModify,
    alsoNeeds: storagesToo,
    returns: upid,
    cli: {
      command: ['disk', 'remove', 'directory'],
      positional: ['name'],
      destroys: 'name',
      examples: ['disk remove directory fast --cleanup-config --cleanup-disks --confirm fast'],
    },
    handle: (params, call) => call.start(removeDirectory, removalOf(params)),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/disks/lvm',
    description: 'Volume groups of LVM with the disks they are made of.',
    proxyTo: 'node',
    params: at,
    permission: mayAudit,
    returns: groupTree,
    cli: { command: ['disk', 'lvm'] },
    handle: (_, { services }) => groupsOf(services.host),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/disks/lvm',
    description: 'Make a volume group of an empty disk.',
    proxyTo: 'node',
    params: { ...at, name, device, ...added },
    permission: mayModify,
    alsoNeeds: storagesToo,
    returns: upid,
    cli: {
      command: ['disk', 'create', 'lvm'],
      positional: ['name', 'device'],
      examples: ['disk create lvm vg1 /dev/sdb'],
    },
    async handle(params, call) {
      const path = await requireOurs(call.services.settings, params.device)
      return call.start(createVolumeGroup, {
        device: path,
        name: params.name,
        addStorage: params.add_storage ?? false,
      })
    },
  }),
  endpoint({
    method: 'DELETE',
    path: '/nodes/{node}/disks/lvm/{name}',
    description: 'Remove a volume group that holds no volume.',
    proxyTo: 'node',
    params: { ...at, name, ...removal },
    permission: mayModify,
    alsoNeeds: storagesToo,
    returns: upid,
    cli: {
      command: ['disk', 'remove', 'lvm'],
      positional: ['name'],
      destroys: 'name',
      examples: ['disk remove lvm vg1 --cleanup-disks --confirm vg1'],
    },
    handle: (params, call) => call.start(removeVolumeGroup, removalOf(params)),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/disks/lvmthin',
    description: 'Thin pools of LVM.',
    proxyTo: 'node',
    params: at,
    permission: mayAudit,
    returns: array(thinPoolItem),
    cli: { command: ['disk', 'lvmthin'], columns: ['vg', 'lv', 'lv_size', 'used', 'metadata_used'], id: 'lv' },
    handle: (_, { services }) => thinPoolsOf(services.host),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/disks/zfs',
    description: 'Pools of ZFS. A node whose kernel has no ZFS has none.',
    proxyTo: 'node',
    params: at,
    permission: mayAudit,
    returns: array(zfsPoolItem),
    cli: { command: ['disk', 'zfs'], columns: ['name', 'size', 'alloc', 'free', 'health'], id: 'name' },
    handle: (_, { services }) => zfsPoolsOf(services.host),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/disks/initgpt',
    description: 'Give an empty disk a GUID partition table.',
    proxyTo: 'node',
    params: {
      ...at,
      disk,
      uuid: optional(string({ description: 'Identifier of the table.', pattern: /[a-fA-F0-9-]+/, maxLength: 36 })),
    },
    permission: mayModify,
    returns: upid,
    cli: { command: ['disk', 'init'], positional: ['disk'], examples: ['disk init /dev/sdb'] },
    async handle({ disk: path, uuid }, call) {
      return call.start(initDisk, { disk: await requireOurs(call.services.settings, path), uuid })
    },
  }),
  endpoint({
    method: 'PUT',
    path: '/nodes/{node}/disks/wipedisk',
    description: 'Make a disk blank. What was on it is gone for good; a disk anybody uses is refused.',
    proxyTo: 'node',
    params: { ...at, disk },
    permission: rootOnly,
    returns: upid,
    cli: {
      command: ['disk', 'wipe'],
      positional: ['disk'],
      destroys: 'disk',
      examples: ['disk wipe /dev/sdb --confirm /dev/sdb'],
    },
    async handle({ disk: path }, call) {
      return call.start(wipeDisk, { disk: await requireOurs(call.services.settings, path) })
    },
  }),
]

function removalOf(params: {
  name: string
  'cleanup-config'?: boolean | undefined
  'cleanup-disks'?: boolean | undefined
}) {
  const { name: removed, 'cleanup-config': cleanupConfig, 'cleanup-disks': cleanupDisks } = params
  return { name: removed, cleanupConfig, cleanupDisks }
}
