/**
 * Operations whose world is a machine with guests and networks keep the promises every operation makes:
 * drills, verifications, and the acts on a running guest. The others have theirs beside their code.
 */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { NodeKeys } from '#backup/node-keys.ts'
import { DatastoreUpkeep } from '#backup/upkeep.ts'
import { MiB } from '#base/bytes.ts'
import { systemClock, waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { asVolumeId, type Vmid } from '#base/ids.ts'
import { silentLog } from '#base/log.ts'
import { DatastoreJobs } from '#cluster/datastore-jobs.ts'
import { NodeFacts } from '#cluster/node-facts.ts'
import { machine } from '#host/exec.ts'
import { links } from '#host/network/ip.ts'
import { listNetns } from '#host/network/netns.ts'
import { findProcesses } from '#host/programs/proc.ts'
import { namesOf } from '#network/names.ts'
import { fillDisks } from '#operations/backup/fill-disks.ts'
import { collectSpace } from '#operations/backup/collect.ts'
import { takeOverBackups } from '#operations/backup/take-over.ts'
import { tendDatastore } from '#operations/backup/tend.ts'
import { verifyBackups } from '#operations/backup/verify.ts'
import { resetGuest, stopGuest } from '#operations/guest/power.ts'
import { rebootGuest, shutdownGuest } from '#operations/guest/shutdown.ts'
import { bulkShutdown, bulkStart, bulkSuspend, startAll, stopAll, suspendAll } from '#operations/node/all-guests.ts'
import { drillGuest } from '#operations/recovery/drill.ts'
import type { DrillGuest } from '#operations/recovery/drill-facts.ts'
import { RecoveryService } from '#recovery/service.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { filesBelow } from '../fixtures/datastore.ts'
import { unpackInto } from '../fixtures/first-format/unpacked.ts'
import { buttonSays, writeButtonDisk } from '../fixtures/guests/power-button.ts'
import { type BackupWorld, backupWorld } from './backup-world.ts'
import { type GuestWorld, guestWorld } from './qemu-world.ts'

const host = machine()

suite('operations on a stopped guest with a backup', () => {
  // One for all runs: what a run leaves behind is there for the next ones to see, too.
  let world: BackupWorld
  let runs = 0
  before(async () => {
    world = await backupWorld()
    const volid = await world.storage.allocate({ storage: 'local', vmid: world.id(100), sizeBytes: MiB, format: 'raw' })
    const { path } = await world.storage.location(volid)
    await host.run(['qemu-io', '-f', 'raw', '-c', 'write -P 7 300k 200k', path])
    await world.define(100, { scsi0: volid })
    await world.run({ vmids: [100] })
  })
  after(async () => {
    await world.network.removeEverything()
    await world[Symbol.asyncDispose]()
  })

  everyStepFails(
    drillGuest,
    async () => {
      const params: DrillGuest = {
        vmid: 100,
        backupStorage: 'vault',
        wanted: 'L2',
        probes: [],
        bootTimeoutSeconds: 10,
      }
      // A run follows the one before within the second evidence is named after.
      runs += 1
      const recovery = new RecoveryService({ stateDir: join(world.settings.stateDir, `run-${runs}`) })
      const deps = { ...world.deps, network: world.network, recovery, node: new NodeFacts({ clock: systemClock }) }
      return { params, deps, look: () => everythingOf(world), [Symbol.asyncDispose]: async () => {} }
    },
    { leavesNothing: true },
  )

  for (const params of [{ storage: 'vault' }, { volume: 'the only one' }]) {
    suite(`verifying ${'storage' in params ? 'a storage' : 'a backup'}`, () => {
      everyStepFails(
        verifyBackups,
        async () => {
          const [only] = await world.backup.list({ storage: 'vault' })
          return {
            params: 'storage' in params ? params : { volume: String(only?.volid) },
            deps: world.deps,
            look: () => everythingOf(world),
            [Symbol.asyncDispose]: async () => {},
          }
        },
        { leavesNothing: true },
      )
    })
  }
})

suite('operations on datastores', () => {
  let world: BackupWorld
  let runs = 0
  before(async () => {
    world = await backupWorld({ forgetful: true })
    await world.define(100)
  })
  after(() => world[Symbol.asyncDispose]())

  const found = async (storage: string) => {
    try {
      return (await world.backup.list({ storage })).map(({ vmid, damage, notes }) => ({ vmid, damage, notes }))
    } catch (fault) {
      if (isFault(fault, 'unavailable')) return 'of the first format'
      throw fault
    }
  }
  everyStepFails(
    collectSpace,
    async () => {
      const [volid = ''] = await world.run({ vmids: [100] })
      await world.backup.remove(asVolumeId(volid))
      return {
        params: { storage: 'vault' },
        deps: { ...world.deps, datastoreJobs: new DatastoreJobs(world.deps) },
        look: async () => ({
          backups: await found('vault'),
          hasPacks: (await filesBelow(join(world.settings.stateDir, 'vault/datastore/packs'))).length > 0,
        }),
        [Symbol.asyncDispose]: async () => {},
      }
    },
    { isFinal: true, withCrashes: false },
  )

  everyStepFails(
    tendDatastore,
    async () => {
      await world.run({ vmids: [100] })
      const { storage, backup, deps } = world
      const upkeep = new DatastoreUpkeep({ ...deps, storage, keys: new NodeKeys(deps), log: silentLog })
      const look = async () => (await backup.list({ storage: 'vault' })).filter(({ damage }) => damage !== undefined)
      return {
        params: { job: 'look', type: 'verify' as const, storage: 'vault' },
        deps: { ...deps, upkeep, datastoreJobs: new DatastoreJobs(deps) },
        look,
        [Symbol.asyncDispose]: async () => {},
      }
    },
    { leavesNothing: true, withCrashes: false },
  )

  everyStepFails(
    takeOverBackups,
    async () => {
      runs += 1
      const [storage, path] = [`old${runs}`, join(world.settings.stateDir, `old-${runs}`)]
      await mkdir(join(path, 'datastore'), { recursive: true })
      await unpackInto(join(path, 'datastore'))
      await world.storage.create({ storage, type: 'dir', path, content: 'backup' })
      // In the place of its own, or aside: it is the same.
      const isThere = () => ['datastore', 'datastore-first'].some((name) => existsSync(join(path, name, 'backups/ct')))
      return {
        params: { storage },
        deps: world.deps,
        look: async () => ({ backups: await found(storage), isThere: isThere() }),
        [Symbol.asyncDispose]: async () => {},
      }
    },
    { isFinal: true, withCrashes: false },
  )
})

suite('operations on a running guest', () => {
  let world: GuestWorld
  let vmid: Vmid
  before(async () => {
    world = await guestWorld({ forgetful: true })
    const disk = join(world.settings.stateDir, 'button.raw')
    await writeButtonDisk(disk)
    await world.addStorage()
    const volid = await world.storage.importImage({
      storage: 'local',
      vmid: world.id(100),
      source: disk,
      format: 'raw',
    })
    vmid = await world.define(100, { virtio0: volid, boot: 'order=virtio0', onboot: '1' })
  })
  after(() => world[Symbol.asyncDispose]())

  const place = async () => {
    if (!(await world.guests.isRunning(vmid))) await world.guests.start(vmid)
    await untilButtonWorks(world, vmid)
    if (await world.guests.isPaused(vmid)) await world.guests.resume(vmid)
    return {
      params: { vmid, timeout: 3 },
      deps: { guests: world.guests, store: world.store, clock: systemClock },
      look: async () => {
        await world.guests.reap(vmid)
        const isRunning = await world.guests.isRunning(vmid)
        // A guest on its way up does not hear its button; the next run would wait for it in vain.
        if (isRunning) await untilButtonWorks(world, vmid)
        const isPaused = isRunning && (await world.guests.isPaused(vmid))
        return { isRunning, isPaused, ...(await everythingOf(world)) }
      },
      [Symbol.asyncDispose]: async () => {},
    }
  }
  // An abort leaves a guest that was told to shut down on its way.
  const settling = async () => {
    const made = await place()
    let looks = 0
    return {
      ...made,
      look: async () => {
        looks += 1
        const isGone = async () => !(await world.guests.isRunning(vmid))
        if (looks > 1 && (await isPressed(world, vmid)))
          await waitFor(isGone, { what: 'the end of the guest', timeoutMs: 60_000 })
        return made.look()
      },
    }
  }
  // A plug that was pulled stays pulled.
  everyStepFails(stopGuest, place, { isFinal: true })
  everyStepFails(shutdownGuest, settling, { isFinal: true })
  // On a busy machine a guest that was told may take longer than the others are given here.
  const patient = async () => ({ ...(await place()), params: { vmid, timeout: 8 } })
  everyStepFails(rebootGuest, patient, { leavesNothing: true, withCrashes: false })
  // Its disk is whole, which nobody has written down yet.
  const filling = async () => {
    const made = await place()
    const from = asVolumeId('local:backup/vm/100/2026-01-01T00:00:00Z')
    await world.guests.setFilling(vmid, { from, by: 'root@pam', drives: ['virtio0'], bytesPerSecond: 0 })
    return made
  }
  everyStepFails(fillDisks, filling, { isFinal: true, leavesNothing: false })
  const stopped = async () => {
    const made = await place()
    await world.guests.stop(vmid)
    return made
  }
  everyStepFails(startAll, stopped, { isFinal: true })
  everyStepFails(stopAll, settling, { isFinal: true })
  everyStepFails(suspendAll, place, { isFinal: true })
  everyStepFails(bulkStart, stopped, { isFinal: true, withCrashes: false })
  everyStepFails(bulkShutdown, settling, { isFinal: true, withCrashes: false })
  everyStepFails(bulkSuspend, place, { isFinal: true, withCrashes: false })
  // Last: a guest on its way up after a reset has said long before that it hears its button.
  everyStepFails(resetGuest, place, { isFinal: true, leavesNothing: true })
})

/** One command each to the machine's systemd, which no test may give to the machine it runs on. */
const untested = ['reloadService', 'restartService', 'startService', 'stopService']

test('every operation there is has such a test', async () => {
  const root = join(import.meta.dirname, '../..')
  const registry = await readFile(join(root, 'src/operations/all.ts'), 'utf8')
  const names = [...registry.matchAll(/\(await import\('[^']+'\)\)\.(\w+)/g)].map(([, name = '']) => name).toSorted()
  assert.ok(names.length > 10)
  const files = (
    await Promise.all(['src/operations', 'test/guest'].map((folder) => testsBelow(join(root, folder))))
  ).flat()
  const texts = await Promise.all(files.map((file) => readFile(file, 'utf8')))
  const isTested = (name: string) =>
    texts.some((text) => new RegExp(`everyStepFails\\(\\s*(named\\()?${name}\\b`).test(text))
  assert.deepEqual(
    names.filter((name) => !isTested(name)),
    untested,
  )
})

async function testsBelow(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true })
  return names.filter((name) => name.endsWith('.test.ts')).map((name) => join(folder, name))
}

async function untilButtonWorks({ guests }: GuestWorld, vmid: Vmid): Promise<void> {
  const serial = join(guests.runDirOf(vmid), 'serial.log')
  await waitFor(async () => (await readFile(serial, 'utf8').catch(() => '')).includes(buttonSays), {
    what: `the boot of guest ${vmid}`,
    timeoutMs: 60_000,
  })
}

/** Its power button was pressed, or it is gone by now: port 0x600 is where the guest itself looks. */
async function isPressed({ guests }: GuestWorld, vmid: Vmid): Promise<boolean> {
  if (!(await guests.isRunning(vmid))) return false
  try {
    await using monitor = await guests.qmp(vmid)
    const said = await monitor.execute<string>('human-monitor-command', { 'command-line': 'i /hx 0x600' })
    return (Number(/= (0x\w+)/.exec(said)?.[1]) & 0x100) !== 0
  } catch (fault) {
    if (isFault(fault) && !(await guests.isRunning(vmid))) return true
    throw fault
  }
}

/** All that an operation could leave on the machine or in the node, but for the evidence of drills. */
async function everythingOf({ settings, store, guests, filesOfStorage }: GuestWorld): Promise<object> {
  const { isOurLink, isOurNetns } = namesOf(settings.instance)
  const isOurs = (word: string) => word.includes(settings.runDir) || word.includes(settings.stateDir)
  const processes = await findProcesses((argv) => argv.some(isOurs))
  const runFiles = await readdir(settings.runDir, { recursive: true }).catch(() => [])
  return {
    guests: (await guests.list()).map(({ vmid, options, lock }) => ({ vmid, options, lock })),
    keys: (await store.list('')).map(({ key }) => key),
    links: (await links(host)).filter(isOurLink).map(({ name }) => name),
    namespaces: (await listNetns(host)).filter(isOurNetns),
    processes: processes.length,
    // Logs of a guest that ran stay until it goes.
    runFiles: runFiles.filter((name) => /\d/.test(name) && !name.endsWith('.log')).toSorted(),
    storage: await filesOfStorage(),
  }
}
