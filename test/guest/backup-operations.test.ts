/** Backup and restore keep the promises every operation makes, on real disks. */
import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { createHash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '#base/bytes.ts'
import { asVolumeId } from '#base/ids.ts'
import { machine } from '#host/exec.ts'
import { type BackupGuests, backupGuests } from '#operations/backup/run.ts'
import { restoreGuest } from '#operations/guest/restore.ts'
import { restoreDiskOfGuest } from '#operations/guest/restore-disk.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { vmaArchive } from '../fixtures/vma-writer.ts'
import { type BackupWorld, backupWorld } from './backup-world.ts'
import { copiesOf } from './qemu-world.ts'

const host = machine()

const anotherWithGuest = copiesOf(worldWithGuest, backupWorld)
// Who serves a guest that runs from its backup reads the node's store.
const anotherOnDisk = copiesOf(worldWithGuest, (how) => backupWorld({ ...how, forgetful: false }))
const anotherWithSnapshot = copiesOf(worldWithSnapshot, backupWorld)

async function worldWithGuest(): Promise<BackupWorld> {
  const world = await backupWorld({ forgetful: true })
  // The same in every world, so that two of them can be compared.
  const disks: Record<string, string> = {}
  for (const [drive, format] of [
    ['scsi0', 'raw'],
    ['virtio0', 'qcow2'],
  ] as const) {
    const volid = await world.storage.allocate({ storage: 'local', vmid: world.id(100), sizeBytes: MiB, format })
    const { path } = await world.storage.location(volid)
    await host.run(['qemu-io', '-f', format, '-c', 'write -P 7 300k 200k', path])
    disks[drive] = volid
  }
  await world.define(100, { ...disks, smbios1: 'uuid=00000000-0000-0000-0000-000000000001', vmgenid: '0' })
  return world
}

/** Guests, their disks with content, and that no backup is damaged or half there. */
async function look(world: BackupWorld, how: 'content' | 'names' = 'content'): Promise<object> {
  const guests = await world.guests.list()
  const files: string[] = []
  for (const file of await world.filesOfStorage()) {
    if (how === 'names') {
      files.push(file)
      continue
    }
    const hash = createHash('sha256')
    // What a backup notes down in an image, to know later what has changed, is nothing a guest could see.
    const path = file.endsWith('.qcow2') ? await rawOf(world, file) : join(world.settings.stateDir, file)
    const stream = createReadStream(path).on('data', (part) => hash.update(part))
    await once(stream, 'end')
    files.push(`${file} ${hash.digest('hex')}`)
  }
  const backups = await world.backup.list({ storage: 'vault' })
  return {
    guests: guests.map(({ vmid, options, lock, state }) => ({
      vmid,
      options: { ...options, meta: '' },
      lock,
      state: state.state,
    })),
    files,
    damages: backups.flatMap(({ damage }) => (damage === undefined ? [] : [damage])),
  }
}

async function rawOf(world: BackupWorld, file: string): Promise<string> {
  const raw = join(world.settings.stateDir, 'look.raw')
  const from = join(world.settings.stateDir, file)
  await host.run(['qemu-img', 'convert', '--force-share', '-f', 'qcow2', '-O', 'raw', from, raw])
  return raw
}

const stop = (world: BackupWorld) => () => world[Symbol.asyncDispose]()

// A backup that was committed stays, whatever fails after it; to all else it is as if nobody had backed up.
everyStepFails(
  backupGuests,
  async () => {
    const world = await anotherWithGuest()
    const params: BackupGuests = { vmids: [100], storage: 'vault', mode: 'snapshot' }
    return { params, deps: world.deps, look: () => look(world), [Symbol.asyncDispose]: stop(world) }
  },
  { leavesNothing: true },
)

for (const [what, vmid, isLive] of [
  ['a new guest', 101, false],
  ['the guest itself, which runs meanwhile', 100, true],
] as const) {
  everyStepFails(
    named(restoreGuest, what),
    async () => {
      const world = await (isLive ? anotherOnDisk : anotherWithGuest)()
      const [archive = ''] = await world.run({ vmids: [100] })
      const params = { vmid, archive, force: vmid === 100, isLive }
      return { params, deps: world.deps, look: () => look(world), [Symbol.asyncDispose]: stop(world) }
    },
    // Where an archive is restored over a guest with a snapshot every step has something to do; crashes there stand for all.
    { withCrashes: false },
  )
}

everyStepFails(restoreDiskOfGuest, async () => {
  const world = await anotherWithGuest()
  const [archive = ''] = await world.run({ vmids: [100] })
  const params = { vmid: 100, archive, disk: 'virtio0', drive: 'virtio0' }
  return { params, deps: world.deps, look: () => look(world), [Symbol.asyncDispose]: stop(world) }
})

async function worldWithSnapshot(): Promise<BackupWorld> {
  const world = await backupWorld({ forgetful: true })
  const disks: Record<string, string> = {}
  for (const drive of ['scsi0', 'scsi1']) {
    const sizeBytes = MiB
    disks[drive] = await world.storage.allocate({ storage: 'local', vmid: world.id(100), sizeBytes, format: 'qcow2' })
  }
  await world.define(100, { ...disks, smbios1: 'uuid=00000000-0000-0000-0000-000000000001', vmgenid: '0' })
  await world.guests.changeSnapshots(world.id(100), ({ options }) => ({
    options: { ...options, parent: 'before' },
    snapshots: { before: { options, takenAt: 1, description: '' } },
  }))
  for (const volid of Object.values(disks)) await (await world.storage.snapshots(asVolumeId(volid))).take('before')
  const conf = 'memory: 16\nscsi0: local:100/x.qcow2\nvmgenid: 0\nsmbios1: uuid=00000000-0000-0000-0000-000000000002\n'
  const devices = { 'drive-scsi0': Buffer.alloc(MiB, 'x') }
  await writeFile(archiveIn(world), vmaArchive({ configs: { 'qemu-server.conf': conf }, devices }))
  return world
}

const archiveIn = ({ settings }: BackupWorld) => join(settings.stateDir, 'x.vma')

// An archive over a guest with a snapshot, one disk of which the archive knows nothing.
everyStepFails(named(restoreGuest, 'a guest with a snapshot, from an archive'), async () => {
  const world = await anotherWithSnapshot()
  const snapshots = async () => {
    const { options, snapshots: kept } = await world.guests.config(world.id(100))
    const all = Object.values(options).filter((text) => text.startsWith('local:100/'))
    const tags = all.map(async (text) => (await world.storage.snapshots(asVolumeId(text.split(',')[0] ?? ''))).list())
    return { kept: kept ?? null, tags: await Promise.all(tags) }
  }
  return {
    params: { vmid: 100, archive: archiveIn(world), force: true },
    deps: world.deps,
    // Snapshots are dropped last of all, so a disk's bytes are not those of before; what it holds is.
    look: async () => ({ ...(await look(world, 'names')), ...(await snapshots()) }),
    [Symbol.asyncDispose]: stop(world),
  }
})

/** Titles of tests say which. */
function named<T extends { readonly name: string }>(operation: T, what: string): T {
  return Object.assign(Object.create(Object.getPrototypeOf(operation) as object) as T, operation, {
    name: `${operation.name} over ${what}`,
  })
}
