/** Backup and restore keep the promises every operation makes, on real disks. */
import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { MiB } from '#base/bytes.ts'
import { machine } from '#host/exec.ts'
import { type BackupGuests, backupGuests } from '#operations/backup/run.ts'
import { restoreGuest } from '#operations/guest/restore.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { type BackupWorld, backupWorld } from './backup-world.ts'

const host = machine()

async function worldWithGuest(): Promise<BackupWorld> {
  const world = await backupWorld()
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
async function look(world: BackupWorld): Promise<unknown> {
  const guests = await world.guests.list()
  const files: string[] = []
  for (const file of await world.filesOfStorage()) {
    const hash = createHash('sha256')
    const stream = createReadStream(join(world.settings.stateDir, file)).on('data', (part) => hash.update(part))
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

const stop = (world: BackupWorld) => () => world[Symbol.asyncDispose]()

// A backup that was committed stays, whatever fails after it; to all else it is as if nobody had backed up.
everyStepFails(
  backupGuests,
  async () => {
    const world = await worldWithGuest()
    const params: BackupGuests = { vmids: [100], storage: 'vault', mode: 'snapshot' }
    return { params, deps: world.deps, look: () => look(world), [Symbol.asyncDispose]: stop(world) }
  },
  { leavesNothing: true },
)

for (const [what, vmid] of [
  ['a new guest', 101],
  ['the guest itself', 100],
] as const) {
  everyStepFails(
    named(restoreGuest, what),
    async () => {
      const world = await worldWithGuest()
      const [archive = ''] = await world.run({ vmids: [100] })
      const params = { vmid, archive, force: vmid === 100 }
      return { params, deps: world.deps, look: () => look(world), [Symbol.asyncDispose]: stop(world) }
    },
    // Over the guest itself every step has something to do; crashes there stand for both.
    { withCrashes: vmid === 100 },
  )
}

/** Titles of tests say which. */
function named<T extends { readonly name: string }>(operation: T, what: string): T {
  return Object.assign(Object.create(Object.getPrototypeOf(operation) as object) as T, operation, {
    name: `${operation.name} over ${what}`,
  })
}
