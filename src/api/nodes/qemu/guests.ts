/** `/nodes/{node}/qemu`: the virtual machines of a node. */
import { invalid } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { array, boolean, integer, object, optional, string } from '#base/schema/schema.ts'
import { nodeName, storageId, upid } from '#base/schema/standard.ts'
import type { Options } from '#guests/config.ts'
import { driveNames, driveOf, wishOf } from '#guests/qemu/drive.ts'
import { requireConfidential } from '#guests/qemu/confidential.ts'
import { requireKnownMachine } from '#guests/qemu/known-machine.ts'
import { withPasswordHashed } from '#guests/cloud-init/password.ts'
import { requireOptions } from '#guests/qemu/new-guest.ts'
import { optionParams, optionsFrom } from '#guests/qemu/options.ts'
import { createGuest } from '#operations/guest/create.ts'
import { destroyGuest } from '#operations/guest/destroy.ts'
import { isForeignArchive } from '#operations/backup/archive-file.ts'
import { onlyFromBackup, restoreGuest } from '#operations/guest/restore.ts'
import { any, anyone, check, mayModify, type Permission } from '#rest/endpoint.ts'
import { guestItems, itemOf, visibleGuests } from '#views/guest-list.ts'
import type { Call } from '../../call.ts'
import { endpoint } from '../../call.ts'
import { guestAt, skiplock } from './at.ts'
import { optionRightsSay, requireRoot, rightsToRestore, rightsToSet } from './rights.ts'

const children = [
  'agent',
  'clone',
  'cloudinit',
  'config',
  'dbus-vmstate',
  'feature',
  'monitor',
  'move_disk',
  'pending',
  'resize',
  'rrd',
  'rrddata',
  'sendkey',
  'snapshot',
  'spiceproxy',
  'status',
  'template',
  'termproxy',
  'unlink',
  'vncproxy',
  'vncwebsocket',
]

export const guestEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/qemu',
    description: 'Virtual machines of a node, as far as the caller may see them.',
    proxyTo: 'node',
    params: { node: nodeName, full: optional(boolean({ description: 'Ask running guests too.' })) },
    permission: anyone,
    returns: guestItems,
    cli: {
      command: ['vm', 'list'],
      columns: ['vmid', 'name', 'status', 'cpus', 'cpu', 'maxmem', 'mem', 'uptime', 'tags'],
      id: 'vmid',
      examples: ['vm list', 'vm list -o json'],
    },
    isKept: true,
    handle: async (_, { services, may }) => (await visibleGuests(services.guests, may, 'qemu')).map(itemOf),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu',
    description: 'Create a virtual machine, or restore one from a backup.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      ...optionParams,
      archive: optional(
        string({ description: 'Restore this backup; for root also the path of an archive.', maxLength: 255 }),
      ),
      storage: optional(storageId),
      // Disks are read where they are, also inside an archive, so nothing is put there.
      'import-working-storage': optional(storageId),
      force: optional(boolean({ description: 'Replace an existing guest.', requires: 'archive' })),
      unique: optional(boolean({ description: 'Give new MAC addresses and ids.', requires: 'archive' })),
      bwlimit: optional(integer({ description: 'KiB per second when restoring.', minimum: 0, maximum: 2 ** 40 })),
      'live-restore': optional(
        boolean({ description: 'Start it at once; its disks come while it runs, in format qcow2.' }),
      ),
      pool: optional(string({ description: 'Pool to put the guest in.', format: 'pve-poolid', maxLength: 255 })),
      start: optional(boolean({ description: 'Start it when it is made.', default: false })),
    },
    permission: any(check('VM.Allocate', '/vms/{vmid}'), check('VM.Allocate', '/pool/{pool}')),
    alsoNeeds: {
      says: `${optionRightsSay}; with a pool, rights on it do as well as those on the guest, and the right to change its permissions; to restore, the right to read the backup, and Datastore.AllocateSpace where the disks go`,
      of: (params) => [
        ...orThroughPool(rightsToSet(params.vmid, optionsFrom(params)), params),
        ...rightsToRestore(params),
        ...(params.pool === undefined ? [] : [mayModify(`/pool/${params.pool}`)]),
      ],
    },
    returns: upid,
    cli: {
      command: ['vm', 'create'],
      destroys: 'vmid',
      destroysWhen: 'force',
      positional: ['vmid'],
      examples: [
        'vm create 100 --name web --memory 2048 --scsihw virtio-scsi-pci --scsi0 local:8 --net0 virtio,bridge=vmbr0',
        'vm create 101 --scsi0 local:0,import-from=/root/disk.qcow2 --agent 1 --start 1',
      ],
    },
    handle: createOrRestore,
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/qemu/{vmid}',
    description: 'What is below this path.',
    proxyTo: 'node',
    params: guestAt,
    permission: anyone,
    returns: array(object({ subdir: string() })),
    handle: () => children.map((subdir) => ({ subdir })),
  }),
  endpoint({
    method: 'DELETE',
    path: '/nodes/{node}/qemu/{vmid}',
    description: 'Destroy a stopped virtual machine and its disks.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      skiplock,
      purge: optional(
        boolean({ description: 'Also take it out of backup jobs that name it; permissions on it go in any case.' }),
      ),
      'destroy-unreferenced-disks': optional(
        boolean({ description: 'Also destroy disks of the guest no option names.', default: false }),
      ),
    },
    permission: check('VM.Allocate', '/vms/{vmid}'),
    returns: upid,
    cli: {
      command: ['vm', 'delete'],
      positional: ['vmid'],
      destroys: 'vmid',
      examples: ['vm delete 100 --confirm 100'],
    },
    async handle(params, call) {
      requireRoot(call, params, {})
      await call.services.guests.config(asVmid(params.vmid))
      const destroyUnreferencedDisks = params['destroy-unreferenced-disks']
      return call.start(destroyGuest, {
        vmid: params.vmid,
        destroyUnreferencedDisks,
        skipLock: params.skiplock,
        purge: params.purge,
      })
    },
  }),
]

/** A guest that is made in a pool is not a member yet; what holds for members holds for it too. */
function orThroughPool(
  rights: readonly Permission[],
  { vmid, pool }: { readonly vmid: number; readonly pool?: string | undefined },
): Permission[] {
  if (pool === undefined) return [...rights]
  return rights.map((right) =>
    right.kind === 'check' && right.path === `/vms/${vmid}` ? any(right, { ...right, path: `/pool/${pool}` }) : right,
  )
}

interface Wish {
  readonly vmid: number
  readonly archive?: string | undefined
  readonly storage?: string | undefined
  readonly force?: boolean | undefined
  readonly unique?: boolean | undefined
  readonly pool?: string | undefined
  readonly start?: boolean | undefined
  readonly bwlimit?: number | undefined
  readonly 'live-restore'?: boolean | undefined
}

async function createOrRestore(params: Wish, call: Call): Promise<string> {
  const { vmid, archive, storage, force, unique, pool, start } = params
  const given = optionsFrom({ ...params })
  requireRoot(call, {}, given)
  await requireKnownMachine(call.services.host, given)
  await requireConfidential(given)
  const options = await withPasswordHashed(call.services.host, given)
  if (pool !== undefined) await call.services.pools.get(pool)
  if (force !== true) await call.services.guests.requireFree(asVmid(vmid))
  const isLive = params['live-restore']
  if (isLive === true && (archive === undefined || isForeignArchive(archive))) throw onlyFromBackup()
  if (archive === undefined) return call.start(createGuest, { vmid, options: requireOptions(options), pool, start })
  requireNoNewDisks(options)
  const how = { storage, force, unique, pool, start, isLive, bwlimit: params.bwlimit }
  return call.start(restoreGuest, { vmid, archive, ...how, overrides: options })
}

/** Disks come from the archive; one that is wished for beside them would be a text without a disk. */
function requireNoNewDisks(options: Options): void {
  const isNew = (name: string) => ['allocate', 'import'].includes(wishOf(driveOf(name, options[name] ?? '')).kind)
  const wished = driveNames(options).filter(isNew)
  if (wished.length === 0) return
  throw invalid(Object.fromEntries(wished.map((name) => [name, 'a restored guest has the disks of its archive'])), {
    remedy: 'Leave it out, and add the disk when the guest is restored.',
  })
}
