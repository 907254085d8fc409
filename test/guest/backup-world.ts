/** A world of guests with a storage for backups, and what tests of backups ask it. */
import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { NodeKeys } from '#backup/node-keys.ts'
import { BackupService } from '#backup/service.ts'
import { KiB } from '#base/bytes.ts'
import { systemClock } from '#base/clock.ts'
import { asVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import { silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { makeDirectory } from '#host/files.ts'
import { type BackupGuests, type BackupRunDeps, backupGuests } from '#operations/backup/run.ts'
import { PoolService } from '#pools/service.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { type ConfirmedKeys, confirmedKeys } from '../fixtures/confirmed-keys.ts'
import { type GuestWorld, guestWorld, machineOfOneVersion, type WorldOptions } from './qemu-world.ts'
import { readNodeAlone } from '../fixtures/read-alone.ts'

const host = machineOfOneVersion()
export const task = { upid: 'UPID:test', user: 'root@pam', node: 'testnode', startTime: 0 }

export interface BackupWorld extends GuestWorld {
  readonly backup: BackupService
  readonly deps: BackupRunDeps & { random: typeof systemRandom; pools: PoolService }
  readonly run: (
    params: Partial<BackupGuests> & { vmids: number[] },
    log?: string[],
    others?: Partial<BackupRunDeps>,
  ) => Promise<VolumeId[]>
}

export async function backupWorld(how: WorldOptions = {}): Promise<BackupWorld> {
  const world = await guestWorld(how)
  const { settings, guests, storage, store } = world
  const made = how.like ? undefined : await addVault(world)
  const keys = made ?? new NodeKeys({ settings, clock: systemClock, random: systemRandom })
  const backup = new BackupService({ clock: systemClock, random: systemRandom, log: silentLog, storage, keys })
  const pools = new PoolService({ store, rightsMark: 'mark' })
  const machine = { timeZone: async () => 'UTC' }
  const deps = {
    settings,
    guests,
    storage,
    store,
    pools,
    backup,
    machine,
    clock: systemClock,
    random: systemRandom,
    host,
  }
  return {
    ...world,
    backup,
    deps,
    async run(params, log = [], others = {}) {
      const all: BackupGuests = { storage: 'vault', mode: 'snapshot', ...params }
      const say = (line: string) => void log.push(line)
      const done = await perform(backupGuests, all, { ...deps, ...others }, memoryJournal(), {
        task,
        log: say,
        warn: say,
      })
      return done.backups.map(asVolumeId)
    },
    async [Symbol.asyncDispose]() {
      try {
        // Those who make many worlds make the same again and again.
        if (made && how.forgetful !== true) await readNodeAlone(settings.stateDir, made.recovery)
      } finally {
        await world[Symbol.asyncDispose]()
      }
    },
  }
}

async function addVault({ settings, storage, addStorage }: GuestWorld): Promise<ConfirmedKeys> {
  await addStorage()
  const path = join(settings.stateDir, 'vault')
  await makeDirectory(path)
  await storage.create({ storage: 'vault', type: 'dir', path, content: 'backup' })
  return confirmedKeys(settings)
}

export async function pathOf(world: GuestWorld, vmid: Vmid, drive: string): Promise<{ path: string; format: string }> {
  const { options } = await world.guests.config(vmid)
  return world.storage.location(asVolumeId((options[drive] ?? '').split(',')[0] ?? ''))
}

/** A disk with random data in random places, holes between. */
export async function addDisk(
  world: GuestWorld,
  vmid: number,
  format: 'raw' | 'qcow2',
  sizeBytes: number,
): Promise<VolumeId> {
  const volid = await world.storage.allocate({ storage: 'local', vmid: world.id(vmid), sizeBytes, format })
  const { path } = await world.storage.location(volid)
  const raw = join(world.settings.stateDir, 'fill.raw')
  const file = await open(raw, 'w')
  await file.truncate(sizeBytes)
  for (let run = 0; run < 12; run += 1) {
    const length = 1 + randomInt(400 * KiB)
    await file.write(randomBytes(length), 0, length, randomInt(sizeBytes - length))
  }
  await file.close()
  await host.run(['qemu-img', 'convert', '-n', '-f', 'raw', '-O', format, raw, path])
  return volid
}

/** The whole content, read by `qemu-img`, which knows nothing of us. */
export async function contentOf(world: GuestWorld, vmid: Vmid, drive: string): Promise<Buffer> {
  const { path, format } = await pathOf(world, vmid, drive)
  const raw = join(world.settings.stateDir, 'content.raw')
  await host.run(['qemu-img', 'convert', '--force-share', '-f', format, '-O', 'raw', path, raw])
  return readFile(raw)
}

/** The guest runs, and nothing a backup puts into it is there. */
export async function nothingOfABackupIn(world: GuestWorld, vmid: Vmid): Promise<void> {
  await using monitor = await world.guests.qmp(vmid)
  assert.equal((await monitor.execute<{ status: string }>('query-status')).status, 'running')
  assert.deepEqual(await monitor.execute('query-block-exports'), [])
  const nodes = await monitor.execute<{ 'node-name': string }[]>('query-named-block-nodes', { flat: true })
  assert.deepEqual(
    nodes.filter((node) => node['node-name'].startsWith('backup-')),
    [],
  )
  assert.deepEqual(
    (await world.filesOfStorage()).filter((file) => file.includes('fleece')),
    [],
  )
}
