/** What a running guest writes is recorded, and backups that read the records hold what backups of everything would. */
import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { open } from 'node:fs/promises'
import { after, before, suite, test } from 'node:test'
import { isZero as isAllZero, KiB, MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { asVolumeId, type Vmid } from '#base/ids.ts'
import { BackupOptions } from '#cluster/backup-options.ts'
import { restoreDisk } from '#datastore/restore/restore-disk.ts'
import { dirtyBitmaps, startBitmap } from '#guests/qemu/dirty-bitmap.ts'
import { machine } from '#host/exec.ts'
import { storedBitmaps } from '#host/qemu/qemu-img-bitmaps.ts'
import { runningMoment, stoppedMoment } from '#operations/backup/guest-source.ts'
import { moveDisk } from '#operations/guest/move-disk.ts'
import { resizeDisk } from '#operations/guest/resize.ts'
import { rollbackGuest } from '#operations/guest/rollback.ts'
import { snapshotGuest } from '#operations/guest/snapshot.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { memoryTarget } from '../fixtures/datastore.ts'
import { overwriterSector, region, roundsIn } from '../fixtures/overwriter.ts'
import { webhookListener } from '../fixtures/webhook-listener.ts'
import { addDisk, type BackupWorld, backupWorld, contentOf, nothingOfABackupIn, pathOf, task } from './backup-world.ts'

const host = machine()
const drives = ['scsi0', 'virtio0'] as const
const diskBytes = 24 * MiB

suite('backups of what a guest has changed', { timeout: 600_000 }, () => {
  let world: BackupWorld
  let vmid: Vmid
  /** What each disk holds, as those know who write to it. */
  const truth = new Map<string, Buffer>()

  before(async () => {
    world = await backupWorld()
    const [scsi0, virtio0] = [
      await addDisk(world, 100, 'raw', diskBytes),
      await addDisk(world, 100, 'qcow2', diskBytes),
    ]
    const options = { scsi0, virtio0: `${virtio0},iothread=1,discard=on`, scsihw: 'virtio-scsi-pci' }
    vmid = await world.define(100, options)
    for (const drive of drives) truth.set(drive, await contentOf(world, vmid, drive))
    await world.guests.start(vmid)
  })
  after(() => world[Symbol.asyncDispose]())

  const truthOf = (drive: string) => truth.get(drive) ?? Buffer.alloc(0)

  /** Some writes as a guest makes them, of content or of zeros, anywhere on each disk. */
  async function write(rounds: number): Promise<void> {
    await using monitor = await world.guests.qmp(vmid)
    for (let round = 0; round < rounds; round += 1) {
      for (const drive of drives) {
        const device = drive === 'virtio0' ? '/machine/peripheral/virtio0/virtio-backend' : drive
        const [length, byte] = [512 * (1 + randomInt(600)), randomInt(3) === 0 ? 0 : 1 + randomInt(254)]
        const offset = 512 * randomInt((diskBytes - length) / 512)
        const what = byte === 0 ? 'write -z -u' : `write -P ${byte}`
        const line = `qemu-io -d ${device} "${what} ${offset} ${length}"`
        const said = await monitor.execute<string>('human-monitor-command', { 'command-line': line })
        assert.doesNotMatch(said, /error|fail/i)
        truthOf(drive).fill(byte, offset, offset + length)
      }
    }
  }

  const whatIs = () => new Map([...truth].map(([drive, content]) => [drive, Buffer.from(content)] as const))

  interface Made {
    readonly volid: string
    readonly log: string
    /** By drive: how it was read. */
    readonly how: (drive: string) => string
  }

  /** Backs up, and holds each disk of the backup against the truth. */
  async function backUp(expected = whatIs()): Promise<Made> {
    const log: string[] = []
    const [volid = asVolumeId('')] = await world.run({ vmids: [100] }, log)
    return check(volid, log, expected)
  }

  async function check(volid: string, log: readonly string[], expected: ReadonlyMap<string, Buffer>): Promise<Made> {
    await using reader = await world.backup.open(asVolumeId(volid))
    for (const [drive, content] of expected) {
      const target = memoryTarget(reader.disk(drive).sizeBytes)
      await restoreDisk(reader, drive, target)
      assert.ok(target.content.equals(content), `${drive} of ${volid} is another:\n${log.join('\n')}`)
    }
    return { volid, log: log.join('\n'), how: (drive) => reader.disk(drive).reading?.how ?? '' }
  }

  const readBy = ({ how }: Made) => drives.map(how)
  const bitmapsOf = async (drive: string) => {
    await using monitor = await world.guests.qmp(vmid)
    return (await dirtyBitmaps(monitor, drive)).map(({ name }) => name)
  }

  test('the first reads everything, those after it what was written, and each is as the disks were', async () => {
    const first = await backUp()
    assert.deepEqual(readBy(first), ['scan', 'scan'])
    assert.match(first.log, /scsi0: dirty bitmap is new/)
    for (let round = 0; round < 3; round += 1) {
      await write(round)
      const made = await backUp()
      assert.deepEqual(readBy(made), ['changes', 'changes'])
      assert.match(made.log, /virtio0: dirty bitmap is OK, since backup vm\/100\/\S+: .* of 24\.0* ?MiB are dirty/)
    }
    for (const drive of drives) assert.equal((await bitmapsOf(drive)).length, 1)
    await nothingOfABackupIn(world, vmid)
  })

  test('what is written while a backup reads is not in it, and in the next', async () => {
    await write(12)
    const expected = whatIs()
    const log: string[] = []
    const running = world.run({ vmids: [100], bwlimit: 2 * KiB }, log)
    await waitFor(() => log.some((line) => line.includes('of one moment')), { what: 'the moment', timeoutMs: 60_000 })
    await write(12)
    assert.ok(!log.some((line) => line.includes('is complete')), 'the backup was over before the guest had written')
    const made = await check((await running)[0] ?? '', log, expected)
    assert.deepEqual(readBy(made), ['changes', 'changes'])
    assert.deepEqual(readBy(await backUp()), ['changes', 'changes'])
  })

  test('a backup that fails takes nothing from the next, and leaves no record behind', async () => {
    await write(3)
    const old = await bitmapsOf('scsi0')
    await assert.rejects(world.run({ vmids: [100], fleecingStorage: 'nowhere' }))
    assert.deepEqual(await bitmapsOf('scsi0'), old)
    // As one leaves it whose process was killed in the middle: a record of a backup that never was.
    {
      await using monitor = await world.guests.qmp(vmid)
      const [name = ''] = old
      await startBitmap(monitor, 'scsi0', name.replace(/\d{4}-\d\d-\d\dT/, '2031-01-01T'))
    }
    const made = await backUp()
    assert.deepEqual(readBy(made), ['changes', 'changes'])
    assert.equal((await bitmapsOf('scsi0')).length, 1)
  })

  test('after the backup it began with is removed, a record is of no use', async () => {
    const made = await backUp()
    await world.backup.remove(asVolumeId(made.volid))
    await write(2)
    const next = await backUp()
    assert.deepEqual(readBy(next), ['scan', 'scan'])
    assert.match(next.log, /dirty bitmap cannot be used \(backup vm\/100\/\S+, which it began with, is not there\)/)
  })

  test('a stop and a start keep records; a qcow2 disk is read by its own while it is off, and what is written then is in it', async () => {
    await backUp()
    await write(2)
    await world.guests.stop(vmid)
    const { path } = await pathOf(world, vmid, 'virtio0')
    await host.run(['qemu-io', '-f', 'qcow2', '-c', 'write -P 77 3M 200k', path])
    truthOf('virtio0').fill(77, 3 * MiB, 3 * MiB + 200 * KiB)
    // Read while it is off, and again while it is off.
    const off = await backUp()
    assert.deepEqual(readBy(off), ['scan', 'changes'])
    const again = await backUp()
    assert.deepEqual(readBy(again), ['scan', 'changes'])
    assert.match(again.log, /virtio0: dirty bitmap is OK/)
    await world.guests.start(vmid)
    await write(2)
    assert.deepEqual(readBy(await backUp()), ['changes', 'changes'])
  })

  test('after QEMU was killed no record is believed', async () => {
    await backUp()
    // From now on the image says that somebody has it open.
    await world.guests.stop(vmid)
    await world.guests.start(vmid)
    const { pid } = await world.guests.listenerOf(vmid)
    await write(2)
    process.kill(pid, 'SIGKILL')
    await waitFor(async () => !(await world.guests.isRunning(vmid)), { what: 'the end of QEMU', timeoutMs: 30_000 })
    const { path } = await pathOf(world, vmid, 'virtio0')
    await host.run(['qemu-io', '-f', 'qcow2', '-c', 'write -P 78 5M 200k', path])
    for (const drive of drives) truth.set(drive, await contentOf(world, vmid, drive))
    await world.guests.start(vmid)
    const made = await backUp()
    assert.deepEqual(readBy(made), ['scan', 'scan'])
    assert.match(made.log, /virtio0: dirty bitmap cannot be used \(QEMU ended without storing it\)/)
    await write(1)
    assert.deepEqual(readBy(await backUp()), ['changes', 'changes'])
  })

  test('who writes to an image and knows no bitmaps makes the record worthless', async () => {
    await world.guests.stop(vmid)
    const { path } = await pathOf(world, vmid, 'virtio0')
    await using file = await open(path, 'r+')
    // Such a program clears the bits it does not know, as the format demands.
    await file.write(Buffer.alloc(8), 0, 8, 88)
    await world.guests.start(vmid)
    assert.deepEqual(readBy(await backUp()), ['changes', 'scan'])
  })

  test('a snapshot, a rollback with memory, a disk that grows and one that moves are followed by whole reads', async () => {
    await world.guests.stop(vmid)
    await perform(moveDisk, { vmid: 100, disk: 'scsi0', format: 'qcow2', delete: true }, world.deps, memoryJournal(), {
      task,
    })
    await world.guests.start(vmid)
    await backUp()
    await write(2)
    const kept = whatIs()
    await perform(snapshotGuest, { vmid: 100, name: 'before', memory: true }, world.deps, memoryJournal(), { task })
    await write(2)
    assert.deepEqual(readBy(await backUp()), ['changes', 'changes'])
    await perform(rollbackGuest, { vmid: 100, name: 'before' }, world.deps, memoryJournal(), { task })
    for (const [drive, content] of kept) truth.set(drive, content)
    assert.equal(await world.guests.isRunning(vmid), true)
    assert.deepEqual(readBy(await backUp()), ['scan', 'scan'])
    await write(2)
    await perform(resizeDisk, { vmid: 100, disk: 'scsi0', size: '+1M' }, world.deps, memoryJournal(), { task })
    truth.set('scsi0', Buffer.concat([truthOf('scsi0'), Buffer.alloc(1 * MiB)]))
    assert.deepEqual(readBy(await backUp()), ['scan', 'changes'])
    await write(2)
    await perform(moveDisk, { vmid: 100, disk: 'virtio0', format: 'raw' }, world.deps, memoryJournal(), { task })
    await write(2)
    assert.deepEqual(readBy(await backUp()), ['changes', 'scan'])
    await write(2)
    assert.deepEqual(readBy(await backUp()), ['changes', 'changes'])
  })
})

suite('one disk at a time', { timeout: 600_000 }, () => {
  let world: BackupWorld
  before(async () => {
    world = await backupWorld()
  })
  after(() => world[Symbol.asyncDispose]())

  async function sparseDisk(vmid: number, sizeBytes: number) {
    const volid = await world.storage.allocate({ storage: 'local', vmid: world.id(vmid), sizeBytes, format: 'raw' })
    return { volid, path: (await world.storage.location(volid)).path }
  }

  async function contentOfBackup(volid: string) {
    await using reader = await world.backup.open(asVolumeId(volid))
    const target = memoryTarget(reader.disk('scsi0').sizeBytes)
    await restoreDisk(reader, 'scsi0', target)
    return { content: target.content, reading: reader.disk('scsi0').reading }
  }

  test('what was written past QEMU is found by looking at unchanged parts: an alarm, and all of it is read', async () => {
    const { volid, path } = await sparseDisk(101, 256 * MiB)
    const vmid = await world.define(101, { scsi0: volid, scsihw: 'virtio-scsi-pci' })
    await world.guests.start(vmid)
    await world.run({ vmids: [101] })
    // In 2,048 chunks: that none of them is among one in a hundred has a chance of one in 800 million.
    const expected = Buffer.alloc(256 * MiB)
    await using file = await open(path, 'r+')
    for (let offset = 0; offset < expected.length; offset += 128 * KiB) {
      expected.fill(9, offset, offset + 4 * KiB)
      await file.write(expected, offset, 4 * KiB, offset)
    }
    await file.sync()
    const log: string[] = []
    await using heard = await webhookListener<{ text: string; guests: { alarms?: string[] }[] }>()
    await new BackupOptions(world.store).change(() => ({ webhook: { url: heard.url, on: 'failure' } }))
    const settings = { ...world.settings, fetchNetworks: ['127.0.0.1'] }
    const [made = ''] = await world.run({ vmids: [101] }, log, { settings })
    await new BackupOptions(world.store).change(() => ({}))
    const [told] = heard.told
    assert.match(told?.text ?? '', /: successful, with an ALARM \(1 of 1 guests\)$/)
    assert.match(told?.guests[0]?.alarms?.join() ?? '', /^scsi0: the record of changes is wrong/)
    assert.match(log.join('\n'), /ALARM: scsi0: the record of changes is wrong: what is at \d+ is not what backup/)
    const { content, reading } = await contentOfBackup(made)
    assert.ok(content.equals(expected))
    assert.deepEqual([reading?.how, reading?.hits], ['scan', 1])
    await world.guests.stop(vmid)
  })

  test('a guest that is stopped for its backup begins its record off, and keeps it if there is a backup', async () => {
    const volid = await addDisk(world, 105, 'qcow2', 4 * MiB)
    const vmid = await world.define(105, { virtio0: volid })
    const { options } = await world.guests.config(vmid)
    const image = { path: (await world.storage.location(volid)).path, format: 'qcow2' } as const
    const names = async () => (await storedBitmaps(host, image)).map(({ name }) => name.replace(/\/[0-9a-f]{8}$/, ''))
    const read = async (time: number, earlier: readonly number[], isKept: boolean) => {
      const at = (seconds: number) => ({ namespace: '', type: 'vm', id: '105', time: seconds }) as const
      const backup = { datastore: 'one', point: at(time), earlier: earlier.map(at) }
      const about = { vmid, disks: [{ drive: 'virtio0', volid }], options, backup, signal: AbortSignal.timeout(60_000) }
      await using moment = stoppedMoment(world.deps, about, { begins: true })
      await using source = await moment.open('virtio0')
      const { since } = moment.recordOf('virtio0')
      let changedBytes = 0
      for await (const { length, isUnchanged = false } of source.extents()) changedBytes += isUnchanged ? 0 : length
      await source[Symbol.asyncDispose]()
      if (isKept) await moment.keepRecords()
      return { since: since?.point.time, changedBytes }
    }
    assert.deepEqual(await read(0, [], false), { since: undefined, changedBytes: 4 * MiB })
    assert.deepEqual(await names(), [])
    await read(60, [], true)
    assert.deepEqual(await names(), ['hakobune/one/vm/105/1970-01-01T00:01:00Z/virtio0'])
    await host.run(['qemu-io', '-f', 'qcow2', '-c', 'write -P 5 1M 1k', image.path])
    assert.deepEqual(await read(120, [60], false), { since: 60, changedBytes: 64 * KiB })
    assert.deepEqual(await read(180, [60], true), { since: 60, changedBytes: 64 * KiB })
    assert.deepEqual(await names(), ['hakobune/one/vm/105/1970-01-01T00:03:00Z/virtio0'])
    assert.deepEqual(await read(240, [60, 180], true), { since: 180, changedBytes: 0 })
  })

  test('what a guest writes over, in part or with zeros, is still seen as it was at the moment that is held', async () => {
    const sizeBytes = 12 * MiB
    for (const [format, number] of [
      ['raw', 103],
      ['qcow2', 104],
    ] as const) {
      const volid = await addDisk(world, number, format, sizeBytes)
      const vmid = await world.define(number, { scsi0: volid, scsihw: 'virtio-scsi-pci' })
      const truth = await contentOf(world, vmid, 'scsi0')
      await world.guests.start(vmid)
      const disks = [{ drive: 'scsi0', volid }]
      const { options } = await world.guests.config(vmid)
      {
        const signal = AbortSignal.timeout(120_000)
        await using moment = await runningMoment(world.deps, { vmid, disks, options, signal })
        await using source = await moment.open('scsi0')
        for (let round = 0; round < 12; round += 1) {
          {
            await using monitor = await world.guests.qmp(vmid)
            const [length, byte] = [512 * (1 + randomInt(400)), round % 2 === 0 ? 0 : 1 + randomInt(254)]
            const what = byte === 0 ? 'write -z -u' : `write -P ${byte}`
            const line = `qemu-io -d scsi0 "${what} ${512 * randomInt((sizeBytes - length) / 512)} ${length}"`
            await monitor.execute('human-monitor-command', { 'command-line': line })
          }
          let end = 0
          for await (const { offset, length, isZero } of source.extents()) {
            assert.equal(offset, end)
            end += length
            if (isZero) assert.ok(isAllZero(truth.subarray(offset, end)), `zeros at ${offset}`)
          }
          assert.equal(end, sizeBytes)
          // As backups read, and from and to anywhere.
          for (const odd of [0, 512 * randomInt(2_000)]) {
            for (let offset = odd; offset < sizeBytes; offset += 1 * MiB) {
              const part = Buffer.alloc(Math.min(1 * MiB, sizeBytes - offset))
              await source.read(offset, part)
              assert.ok(
                part.equals(truth.subarray(offset, offset + part.length)),
                `${format}: round ${round}, ${offset}`,
              )
            }
          }
        }
      }
      await world.guests.stop(vmid)
    }
  })

  test('a guest that never stops writing comes back as it was at one moment, from what it changed alone', async () => {
    const { volid, path } = await sparseDisk(102, 24 * MiB)
    {
      await using file = await open(path, 'r+')
      await file.write(overwriterSector(), 0, 512, 0)
    }
    const vmid = await world.define(102, { scsi0: volid, scsihw: 'virtio-scsi-pci', boot: 'order=scsi0' })
    await world.guests.start(vmid)
    const roundOnDisk = async () => {
      await using file = await open(path, 'r')
      return (await file.read(Buffer.alloc(4), 0, 4, region.offset)).buffer.readUInt32LE(0)
    }
    const untilAfter = (round: number) =>
      waitFor(async () => (await roundOnDisk()) > round, { what: 'the guest to write', timeoutMs: 120_000 })
    await untilAfter(0)
    await world.run({ vmids: [102] })
    for (let backup = 0; backup < 2; backup += 1) {
      const before = await roundOnDisk()
      await untilAfter(before)
      const [made = ''] = await world.run({ vmids: [102] })
      const { content, reading } = await contentOfBackup(made)
      assert.equal(reading?.how, 'changes')
      const rounds = roundsIn(content)
      const [first = 0, last = 0] = [rounds[0], rounds.at(-1)]
      assert.ok(first > before && first - last <= 1, `rounds ${first} to ${last} after ${before}`)
      assert.deepEqual(
        rounds,
        rounds.toSorted((a, b) => b - a),
      )
      assert.ok(content.subarray(0, 512).equals(overwriterSector()))
    }
    await world.guests.stop(vmid)
  })
})
