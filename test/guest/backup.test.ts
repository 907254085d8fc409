/** Real guests are backed up while they run, and come back as they were at one moment. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { nodeFlags } from '#base/node-flags.ts'
import { KiB, MiB } from '#base/bytes.ts'
import { systemClock, waitFor } from '#base/clock.ts'
import { isFault, messageOf } from '#base/fault.ts'
import { asVolumeId, type Vmid } from '#base/ids.ts'
import { machine } from '#host/exec.ts'
import { makeDirectory } from '#host/files.ts'
import { ensureGuestImage } from '#lab/guest-image.ts'
import { leaveGuest } from '#operations/backup/guest-source.ts'
import { markFrozen } from '#operations/backup/point-in-time.ts'
import { restoreGuest } from '#operations/guest/restore.ts'
import { type BackupGuests, backupGuests } from '#operations/backup/run.ts'
import type { BackupDeps } from '#operations/backup/half.ts'
import { memoryJournal, openJournal } from '#tasks/journal.ts'
import { heldLocks, releaseLocks } from '#tasks/lock.ts'
import { perform, unwind } from '#tasks/perform.ts'
import { settingsToEnv } from '../../src/settings.ts'
import { overwriterSector, region, roundsIn } from '../fixtures/overwriter.ts'
import { addDisk, type BackupWorld, backupWorld, contentOf, nothingOfABackupIn, pathOf, task } from './backup-world.ts'
import type { GuestWorld } from './qemu-world.ts'

const host = machine()

test('a stopped guest comes back bit for bit under another id, raw and qcow2, without disks it excludes', async () => {
  await using world = await backupWorld()
  const scsi0 = await addDisk(world, 100, 'raw', 24 * MiB)
  const virtio0 = await addDisk(world, 100, 'qcow2', 16 * MiB + 512)
  const scsi1 = await addDisk(world, 100, 'raw', 4 * MiB)
  const vmid = await world.define(100, {
    name: 'first',
    description: 'two\nlines, 100%',
    scsi0,
    virtio0,
    scsi1: `${scsi1},backup=0`,
    ide2: 'none,media=cdrom',
    net0: 'virtio=BC:24:11:00:00:01,bridge=hklab0',
  })
  const [volid] = await world.run({ vmids: [100], notesTemplate: '{{guestname}} of {{vmid}}', protected: true })
  assert.ok(volid)
  const [listed] = await world.backup.list({ storage: 'vault', vmid: 100 })
  assert.equal(listed?.notes, 'first of 100')
  assert.equal(listed.protected, true)
  assert.equal(await world.guests.isRunning(vmid), false)

  const params = { vmid: 101, archive: volid, unique: true }
  await perform(restoreGuest, params, world.deps, memoryJournal(), { task })
  const restored = world.id(101)
  const { options } = await world.guests.config(restored)
  assert.equal(options.name, 'first')
  assert.equal(options.description, 'two\nlines, 100%')
  assert.equal(options.scsi1, undefined)
  assert.equal(options.ide2, 'none,media=cdrom')
  assert.notEqual(options.net0, 'virtio=BC:24:11:00:00:01,bridge=hklab0')
  for (const drive of ['scsi0', 'virtio0']) {
    assert.match(options[drive] ?? '', /local:101\/vm-101-disk-\d/)
    assert.ok((await contentOf(world, restored, drive)).equals(await contentOf(world, vmid, drive)), drive)
  }
})

test('a running guest that overwrites its disks comes back as it was at one moment on all of them', async () => {
  await using world = await backupWorld()
  const scsi0 = await addDisk(world, 100, 'raw', 24 * MiB)
  const virtio0 = await addDisk(world, 100, 'qcow2', 24 * MiB)
  const sata0 = await addDisk(world, 100, 'raw', 8 * MiB)
  const options = { scsi0, virtio0: `${virtio0},iothread=1`, sata0, scsihw: 'virtio-scsi-pci' }
  const vmid = await world.define(100, options)
  const drives = ['scsi0', 'virtio0', 'sata0']
  const before = new Map<string, Buffer>()
  for (const drive of drives) before.set(drive, await contentOf(world, vmid, drive))
  await world.guests.start(vmid)
  const log: string[] = []
  let isOver = false
  // A limit on the rate leaves time to overwrite everything, from a moment on that the log tells.
  const backup = world.run({ vmids: [100], bwlimit: 4 * KiB }, log).finally(() => (isOver = true))
  while (!log.some((line) => line.includes('of one moment')) && !isOver) await systemClock.sleep(5)
  let writes = 0
  for (let position = 0; position < 8 * MiB; position += 512 * KiB) {
    await using monitor = await world.guests.qmp(vmid)
    for (const drive of drives) {
      const device = drive === 'virtio0' ? '/machine/peripheral/virtio0/virtio-backend' : drive
      const line = `qemu-io -d ${device} "write -P ${1 + randomInt(254)} ${position} 512k"`
      const said = await monitor.execute<string>('human-monitor-command', { 'command-line': line })
      assert.doesNotMatch(said, /error|fail/i)
      writes += 1
    }
  }
  assert.equal(isOver, false, 'the backup was over before the guest had written')
  const [volid] = await backup
  assert.ok(volid && writes === 48)
  for (const drive of drives)
    assert.ok(!(await contentOf(world, vmid, drive)).equals(before.get(drive) ?? Buffer.alloc(0)))

  await perform(restoreGuest, { vmid: 101, archive: volid }, world.deps, memoryJournal(), { task })
  for (const drive of drives) {
    assert.ok((await contentOf(world, world.id(101), drive)).equals(before.get(drive) ?? Buffer.alloc(0)), drive)
  }
  await nothingOfABackupIn(world, vmid)
})

test('a guest that never stops writing comes back as it was at one moment', async () => {
  await using world = await backupWorld()
  const volid = await addDisk(world, 100, 'raw', 24 * MiB)
  const { path } = await world.storage.location(volid)
  const file = await open(path, 'r+')
  await file.write(overwriterSector(), 0, 512, 0)
  await file.write(Buffer.alloc(region.blocks * region.blockBytes), 0, undefined, region.offset)
  await file.close()
  const vmid = await world.define(100, { scsi0: volid, scsihw: 'virtio-scsi-pci', boot: 'order=scsi0' })
  await world.guests.start(vmid)
  const now = async () => roundsOnDisk(path)
  await waitFor(async () => (await now()) > 1, { what: 'the guest to write', timeoutMs: 60_000 })
  const before = await now()
  const log: string[] = []
  const backup = world.run({ vmids: [100], bwlimit: 2 * KiB }, log)
  const moment = waitFor(() => log.some((line) => line.includes('power cut')), {
    what: 'the moment',
    timeoutMs: 60_000,
  })
  await Promise.race([moment, backup])
  const atMoment = await now()
  const [made] = await backup
  const written = await blocksWritten(path)
  await world.guests.stop(vmid)
  await perform(restoreGuest, { vmid: 101, archive: made ?? '' }, world.deps, memoryJournal(), { task })
  const rounds = roundsIn(await contentOf(world, world.id(101), 'scsi0'))
  const [first = 0, last = 0] = [rounds[0], rounds.at(-1)]
  assert.ok(first >= before && first <= atMoment + 1, `round ${first} of ${before} to ${atMoment}`)
  const kept = rounds.reduce((sum, round) => sum + round, 0)
  assert.ok(written > kept, `the guest wrote ${written - kept} blocks while it was read`)
  assert.ok(first - last <= 1, `rounds ${first} to ${last} are mixed`)
  assert.deepEqual(
    rounds,
    rounds.toSorted((a, b) => b - a),
  )
})

/** How often a block was written so far, all blocks together: a round is long where the machine is busy. */
async function blocksWritten(path: string): Promise<number> {
  await using file = await open(path, 'r')
  const { buffer } = await file.read(Buffer.alloc(region.blocks * region.blockBytes), 0, undefined, region.offset)
  return Array.from({ length: region.blocks }, (_, block) => buffer.readUInt32LE(block * region.blockBytes)).reduce(
    (sum, round) => sum + round,
    0,
  )
}

async function roundsOnDisk(path: string): Promise<number> {
  const file = await open(path, 'r')
  try {
    const { buffer } = await file.read(Buffer.alloc(4), 0, 4, region.offset)
    return buffer.readUInt32LE(0)
  } finally {
    await file.close()
  }
}

test('the file systems of a guest with an agent are frozen for the moment, and thawed', async () => {
  await using world = await backupWorld()
  const image = await ensureGuestImage({ host, cacheDir: world.settings.cacheDir })
  const source = { storage: 'local', vmid: world.id(100), source: image.path, format: 'qcow2' } as const
  const vmid = await world.define(100, {
    memory: '192',
    agent: '1',
    scsihw: 'virtio-scsi-pci',
    scsi0: await world.storage.importImage(source),
    boot: 'order=scsi0',
  })
  await world.guests.start(vmid)
  const isUp = () =>
    world.guests.agentExecute(vmid, 'guest-ping').then(
      () => true,
      () => false,
    )
  await waitFor(isUp, { what: 'the agent', timeoutMs: 120_000, everyMs: 200 })
  const [volid] = await world.run({ vmids: [100] })
  const { manifest } = await world.backup.describe(asVolumeId(volid ?? ''))
  const freeze = manifest.facts.freeze as { state: string; fileSystems: number; durationMs: number }
  assert.equal(freeze.state, 'frozen')
  assert.ok(freeze.fileSystems >= 1 && freeze.durationMs < 5_000)
  assert.equal(await world.guests.agentExecute(vmid, 'guest-fsfreeze-status'), 'thawed')
  await nothingOfABackupIn(world, vmid)

  // Frozen by a backup that was killed: its undo thaws.
  {
    await using monitor = await world.guests.qmp(vmid)
    await markFrozen(monitor)
  }
  await world.guests.agentExecute(vmid, 'guest-fsfreeze-freeze')
  await leaveGuest(world.deps, vmid)
  assert.equal(await world.guests.agentExecute(vmid, 'guest-fsfreeze-status'), 'thawed')

  // Stopped for the backup, and running again after it.
  await world.run({ vmids: [100], mode: 'stop' })
  await waitFor(isUp, { what: 'the agent', timeoutMs: 120_000, everyMs: 200 })
})

test('a backup killed at any moment leaves the guest running as it was, and no half backup', async () => {
  await using world = await backupWorld()
  const scsi0 = await addDisk(world, 100, 'raw', 24 * MiB)
  const virtio0 = await addDisk(world, 100, 'qcow2', 24 * MiB)
  const vmid = await world.define(100, { scsi0, virtio0, scsihw: 'virtio-scsi-pci' })
  await world.guests.start(vmid)
  const before = await world.filesOfStorage()
  for (let round = 0; round < 8; round += 1) {
    const journal = join(world.settings.stateDir, `journal-${round}`)
    await killBackup(world, journal, vmid, 60 * round + randomInt(60))
    await using file = await openJournal(journal)
    // A recovery unwinds what was begun; with nothing begun there is nothing to unwind.
    const params: BackupGuests = { vmids: [100], storage: 'vault', mode: 'snapshot' }
    const how = { task: { ...task, upid: 'UPID:killed' } }
    if (file.records.length > 0) await unwind(backupGuests, params, world.deps, file, how)
    await releaseLocks(world.store, () => true)
    await nothingOfABackupIn(world, vmid)
    assert.deepEqual(await world.filesOfStorage(), before)
    for (const { volid, damage } of await world.backup.list({ storage: 'vault' })) {
      assert.equal(damage, undefined)
      await world.backup.verify(volid)
    }
  }
  // And the next one works as if nothing had been.
  const [volid] = await world.run({ vmids: [100] })
  await world.backup.verify(asVolumeId(volid ?? ''))
  await world.backup.verifyAll('vault')
})

async function killBackup(world: GuestWorld, journal: string, vmid: Vmid, ms: number): Promise<void> {
  const program = join(import.meta.dirname, '../fixtures/backup-worker.ts')
  const argv = [...nodeFlags, program, journal, String(vmid), '8192']
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...settingsToEnv(world.settings) }
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'], env })
  const ended = once(child, 'exit') as Promise<[number | null, string | null]>
  await Promise.race([once(child.stdout, 'data'), ended])
  await systemClock.sleep(ms) // The moment of death is the point of this test.
  child.kill('SIGKILL')
  const [code, signal] = await ended
  assert.ok(signal === 'SIGKILL' || code === 0, `the worker ended by itself with ${code}`)
}

test('of several guests one fails; the others are backed up, and the task says which', async () => {
  await using world = await backupWorld()
  for (const vmid of [100, 101, 102]) {
    await world.define(vmid, { scsi0: await addDisk(world, vmid, 'raw', 2 * MiB) })
  }
  const { path } = await pathOf(world, world.id(101), 'scsi0')
  await rm(path)
  const log: string[] = []
  await assert.rejects(world.run({ vmids: [], all: true }, log), (fault) => {
    assert.ok(isFault(fault, 'failed') && fault.message === 'job errors')
    assert.match(fault.remedy ?? '', /1 of 3 backups failed: VM 101: .*does not exist/)
    return true
  })
  const made = await world.backup.list({ storage: 'vault' })
  assert.deepEqual(new Set(made.map(({ vmid }) => Number(vmid))), new Set([100, 102]))
  assert.deepEqual(await heldLocks(world.store), [])
})

test('an abort takes everything back', async () => {
  await using world = await backupWorld()
  const vmid = await world.define(100, {
    scsi0: await addDisk(world, 100, 'raw', 24 * MiB),
    scsihw: 'virtio-scsi-pci',
  })
  await world.guests.start(vmid)
  const abort = new AbortController()
  const params: BackupGuests = { vmids: [100], storage: 'vault', mode: 'suspend', bwlimit: 512 }
  const progress = (phase: string, fraction = 0) => {
    if (phase.includes('read') && fraction > 0) abort.abort()
  }
  const running = perform(backupGuests, params, world.deps, memoryJournal(), { task, signal: abort.signal, progress })
  await assert.rejects(running, /interrupted/)
  await nothingOfABackupIn(world, vmid)
  assert.deepEqual(await world.backup.list({ storage: 'vault' }), [])
})

test('when the fleecing image fails the backup fails, and the guest writes on', async () => {
  await using world = await backupWorld()
  const vmid = await world.define(100, {
    scsi0: await addDisk(world, 100, 'raw', 24 * MiB),
    scsihw: 'virtio-scsi-pci',
  })
  // More than is read ahead.
  const { path } = await pathOf(world, vmid, 'scsi0')
  await host.run(['dd', 'if=/dev/urandom', `of=${path}`, 'bs=1M', 'count=24', 'conv=notrunc', 'status=none'])
  const small = join(world.settings.stateDir, 'small')
  await makeDirectory(small)
  await host.run(['mount', '-t', 'tmpfs', '-o', 'size=2m,mode=0711', 'hako-test', small])
  try {
    await world.storage.create({ storage: 'small', type: 'dir', path: small, content: 'images' })
    await world.guests.start(vmid)
    await host.run(['dd', 'if=/dev/zero', `of=${small}/filler`, 'bs=1k', 'count=1200'])
    const log: string[] = []
    const room = { ...world.deps, storage: withoutAskingForRoom(world) }
    const params: BackupGuests = {
      vmids: [100],
      storage: 'vault',
      mode: 'suspend',
      // Slow enough that the guest overwrites what has yet to be read, however busy the machine is.
      bwlimit: KiB / 2,
      readsAhead: 1,
      fleecingStorage: 'small',
    }
    const say = (line: string) => void log.push(line)
    let isOver = false
    const backup = perform(backupGuests, params, room, memoryJournal(), { task, log: say, warn: say })
    const outcome = backup.then(
      () => 'whole',
      (cause: unknown) => messageOf(cause),
    )
    void outcome.finally(() => (isOver = true))
    while (!log.some((line) => line.includes('of one moment')) && !isOver) await systemClock.sleep(5)
    for (let position = 0; position < 24 * MiB; position += 2 * MiB) {
      await using monitor = await world.guests.qmp(vmid)
      const line = `qemu-io -d scsi0 "write -P 7 ${position} 2M"`
      assert.doesNotMatch(
        await monitor.execute<string>('human-monitor-command', { 'command-line': line }),
        /fail|error/i,
      )
    }
    assert.match(await outcome, /refused (read|blockStatus)/)
    assert.ok((await contentOf(world, vmid, 'scsi0')).equals(Buffer.alloc(24 * MiB, 7)))
    await nothingOfABackupIn(world, vmid)
    assert.deepEqual(await world.backup.list({ storage: 'vault' }), [])
    await world.guests.stop(vmid)
  } finally {
    await host.run(['umount', small])
  }
})

/** The same storages, but an allocation never asks whether there is room. */
function withoutAskingForRoom(world: BackupWorld): BackupDeps['storage'] {
  return new Proxy(world.storage, {
    get(storage, name) {
      if (name === 'allocateBlank') {
        return (request: Parameters<typeof storage.allocateBlank>[0]) =>
          storage.allocateBlank({ ...request, neededBytes: 1 })
      }
      const value: unknown = Reflect.get(storage, name, storage)
      return typeof value === 'function' ? value.bind(storage) : value
    },
  })
}
