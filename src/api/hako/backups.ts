/** Our own branch: the backups of all storages, what is in one, whether it is whole, and the way back. */
import { asVmid, asVolumeId } from '#base/ids.ts'
import { array, boolean, integer, object, optional, refine, string } from '#base/schema/schema.ts'
import { storageId, upid, vmid, volumeId } from '#base/schema/standard.ts'
import { isOfContainer } from '#operations/backup/archive-file.ts'
import { verifyBackups } from '#operations/backup/verify.ts'
import { restoreGuest } from '#operations/guest/restore.ts'
import { restoreDiskOfGuest } from '#operations/guest/restore-disk.ts'
import { restoreContainer } from '#operations/guest/restore-container.ts'
import { deleteVolume } from '#operations/storage/delete.ts'
import { anyone, check } from '#rest/endpoint.ts'
import { backupDetails, backupFacts, backupItem, visibleBackups } from '#views/backups.ts'
import { endpoint } from '../call.ts'
import { toChangeBackup, toReadBackup, toRestore } from '../nodes/backup-rights.ts'

const readsBackup = {
  says: 'Datastore.Allocate on the storage, or Datastore.AllocateSpace there with VM.Backup on the guest',
  of: ({ volume }: { volume: string }) => toReadBackup(volume),
}

export const backupEndpoints = [
  endpoint({
    method: 'GET',
    path: '/hako/backups',
    description: 'Backups on every storage, as far as the caller may see them, newest first.',
    params: {
      storage: optional(refine(storageId, { description: 'Only those on this storage.' })),
      vmid: optional(refine(vmid, { description: 'Only those of this guest.' })),
    },
    permission: anyone,
    returns: array(backupItem),
    isOwn: true,
    cli: {
      command: ['backup', 'list'],
      columns: [
        'volid',
        'vmid',
        'name',
        'pointInTime',
        'size',
        'stored',
        'verified',
        'hint',
        'damage',
        'protected',
        'notes',
      ],
      id: 'volid',
      examples: ['backup list', 'backup list --vmid 100 -o id'],
    },
    handle: (params, { services, may }) => visibleBackups(services, params, may),
  }),
  endpoint({
    method: 'GET',
    path: '/hako/backups/{volume*}',
    description: 'One backup: its disks, the moment it is from, and how it was made.',
    params: { volume: volumeId },
    permission: anyone,
    alsoNeeds: readsBackup,
    returns: backupDetails,
    isOwn: true,
    cli: {
      command: ['backup', 'show'],
      positional: ['volume'],
      id: 'volid',
      examples: ['backup show local:backup/vm/100/2026-01-01T00:00:00Z -o yaml'],
    },
    handle: ({ volume }, { services }) => backupFacts(services, asVolumeId(volume)),
  }),
  endpoint({
    method: 'DELETE',
    path: '/hako/backups/{volume*}',
    description: 'Remove a backup and give back what no other backup uses.',
    params: { volume: volumeId },
    permission: anyone,
    alsoNeeds: {
      says: 'Datastore.Allocate on the storage, or Datastore.AllocateSpace there with VM.Backup on the guest',
      of: ({ volume }) => toChangeBackup(volume),
    },
    returns: upid,
    isOwn: true,
    cli: {
      command: ['backup', 'delete'],
      positional: ['volume'],
      destroys: 'volume',
      examples: [
        'backup delete local:backup/vm/100/2026-01-01T00:00:00Z --confirm local:backup/vm/100/2026-01-01T00:00:00Z',
      ],
    },
    handle: ({ volume }, { start }) => start(deleteVolume, { volume }),
  }),
  endpoint({
    method: 'GET',
    path: '/hako/verify',
    description: 'What can be read again and compared with its digests.',
    params: {},
    permission: anyone,
    returns: array(object({ name: string() })),
    isOwn: true,
    handle: () => [{ name: 'backup' }, { name: 'datastore' }],
  }),
  endpoint({
    method: 'POST',
    path: '/hako/verify/backup',
    description: 'Read a backup again and compare every byte with its digest.',
    params: { volume: volumeId },
    permission: anyone,
    alsoNeeds: readsBackup,
    returns: upid,
    isOwn: true,
    cli: {
      command: ['backup', 'verify'],
      positional: ['volume'],
      examples: ['backup verify local:backup/vm/100/2026-01-01T00:00:00Z'],
    },
    handle: ({ volume }, { start }) => start(verifyBackups, { volume }),
  }),
  endpoint({
    method: 'POST',
    path: '/hako/verify/datastore',
    description: 'Read every file of a datastore again and compare it with its digest.',
    params: { storage: storageId },
    permission: check('Datastore.Allocate', '/storage/{storage}'),
    returns: upid,
    isOwn: true,
    cli: { command: ['backup', 'verify-all'], positional: ['storage'], examples: ['backup verify-all local'] },
    handle: ({ storage }, { start }) => start(verifyBackups, { storage }),
  }),
  endpoint({
    method: 'POST',
    path: '/hako/restore',
    description: 'Make a guest from a backup.',
    params: {
      archive: refine(volumeId, {
        description: 'The backup, as `hako backup list` or `hako storage content` names it; for root also a path.',
      }),
      vmid: refine(vmid, { description: 'Number the guest gets.' }),
      storage: optional(refine(storageId, { description: 'Where its disks go; where they were when absent.' })),
      force: optional(boolean({ description: 'Replace the stopped guest that has this id: its disks are destroyed.' })),
      unique: optional(boolean({ description: 'Give new MAC addresses and ids.' })),
      start: optional(boolean({ description: 'Start it when it is made.' })),
      bwlimit: optional(
        integer({ description: 'KiB per second at most; 0 is no limit.', minimum: 0, maximum: 2 ** 40 }),
      ),
    },
    permission: check('VM.Allocate', '/vms/{vmid}'),
    alsoNeeds: {
      says: 'the right to read the backup, and Datastore.AllocateSpace where the disks go',
      of: toRestore,
    },
    returns: upid,
    isOwn: true,
    cli: {
      command: ['restore'],
      destroys: 'vmid',
      destroysWhen: 'force',
      positional: ['archive', 'vmid'],
      examples: [
        'restore local:backup/vm/100/2026-01-01T00:00:00Z 101 --unique',
        'restore local:backup/vm/100/2026-01-01T00:00:00Z 100 --force --start',
        'restore /mnt/vzdump-qemu-100-2026_01_01-00_00_00.vma.zst 100 --storage local',
        'restore local:backup/ct/200/2026-01-01T00:00:00Z 201 --storage fast',
      ],
    },
    handle: (params, { start }) => {
      const request = { ...params, vmid: asVmid(params.vmid) }
      return isOfContainer(params.archive) ? start(restoreContainer, request) : start(restoreGuest, request)
    },
  }),
  endpoint({
    method: 'POST',
    path: '/hako/restore-disk',
    description: 'Bring one disk of a backup back to a virtual machine: as an unused disk, or in the place of a drive.',
    params: {
      archive: refine(volumeId, { description: 'The backup, as `hako backup list` names it.' }),
      disk: string({
        description: 'Name of the disk in the backup, as scsi1.',
        pattern: /^[a-z]+[0-9]{1,2}$/,
        maxLength: 16,
      }),
      vmid: refine(vmid, { description: 'Virtual machine that gets the disk.' }),
      drive: optional(
        string({
          description: 'Drive of the stopped machine it becomes; what is there is an unused disk then.',
          pattern: /^[a-z]+[0-9]{1,2}$/,
          maxLength: 16,
        }),
      ),
      storage: optional(refine(storageId, { description: 'Where it goes; where it was when absent.' })),
      bwlimit: optional(
        integer({ description: 'KiB per second at most; 0 is no limit.', minimum: 0, maximum: 2 ** 40 }),
      ),
    },
    permission: check('VM.Config.Disk', '/vms/{vmid}'),
    alsoNeeds: {
      says: 'the right to read the backup, and Datastore.AllocateSpace where the disk goes',
      of: toRestore,
    },
    returns: upid,
    isOwn: true,
    cli: {
      command: ['backup', 'restore-disk'],
      positional: ['archive', 'disk', 'vmid'],
      examples: [
        'backup restore-disk local:backup/vm/100/2026-01-01T00:00:00Z scsi1 100',
        'backup restore-disk local:backup/vm/100/2026-01-01T00:00:00Z scsi1 100 --drive scsi1',
      ],
    },
    handle: async (params, { services, start }) => {
      await services.guests.config(asVmid(params.vmid), 'qemu')
      return start(restoreDiskOfGuest, params)
    },
  }),
]
