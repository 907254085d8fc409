/** What a guest writes to raw disks is recorded beyond the end of its QEMU, and backups by those records hold all of it. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { open, readdir, readFile, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { KiB, MiB } from '#base/bytes.ts'
import { systemClock, waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { asVolumeId, type Vmid } from '#base/ids.ts'
import { nodeFlags } from '#base/node-flags.ts'
import { restoreDisk } from '#datastore/restore/restore-disk.ts'
import { dirtyBitmaps } from '#guests/qemu/dirty-bitmap.ts'
import { moveDisk } from '#operations/guest/move-disk.ts'
import { stopGuest } from '#operations/guest/power.ts'
import { resizeDisk } from '#operations/guest/resize.ts'
import { rebootGuest, shutdownGuest } from '#operations/guest/shutdown.ts'
import { startGuest } from '#operations/guest/start.ts'
import { memoryJournal } from '#tasks/journal.ts'
import type { Operation } from '#tasks/operation.ts'
import { perform } from '#tasks/perform.ts'
import { memoryTarget } from '../fixtures/datastore.ts'
import { buttonDisk, buttonSays } from '../fixtures/guests/power-button.ts'
import { addDisk, type BackupWorld, backupWorld, contentOf, pathOf, task } from './backup-world.ts'

const drives = ['scsi0', 'virtio0'] as const
const diskBytes = 24 * MiB
/** The first of its disk, which nobody writes over. */
const bootBytes = 64 * KiB
const ender = join(import.meta.dirname, '../fixtures/guests/end-and-wait.ts')

suite('records of raw disks', { timeout: 600_000 }, () => {
  let world: BackupWorld
  let vmid: Vmid
  /** What each disk holds, as those know who write to it. */
  const truth = new Map<string, Buffer>()

  before(async () => {
    world = await backupWorld()
    const [scsi0, virtio0] = [await addDisk(world, 100, 'raw', diskBytes), await addDisk(world, 100, 'raw', diskBytes)]
    await using file = await open((await world.storage.location(scsi0)).path, 'r+')
    await file.write(buttonDisk(), 0, bootBytes, 0)
    const options = {
      scsi0,
      virtio0: `${virtio0},iothread=1,discard=on`,
      scsihw: 'virtio-scsi-pci',
      boot: 'order=scsi0',
    }
    vmid = await world.define(100, options)
    for (const drive of drives) truth.set(drive, await contentOf(world, vmid, drive))
    await start()
  })
  after(() => world[Symbol.asyncDispose]())

  const truthOf = (drive: string) => truth.get(drive) ?? Buffer.alloc(0)
  const keptDir = () => `${world.guests.runDirOf(vmid)}.kept`

  async function act<P extends object, D>(what: Operation<P, D>, params: object = {}): Promise<void> {
    const { deps } = world
    await perform(what, { vmid: 100, ...params } as never, deps as never, memoryJournal(), { task })
  }

  async function start(): Promise<void> {
    await act(startGuest)
    await untilBooted()
  }

  async function untilBooted(): Promise<void> {
    const serial = join(world.guests.runDirOf(vmid), 'serial.log')
    const hasSaid = async () => (await readFile(serial, 'utf8').catch(() => '')).includes(buttonSays)
    await waitFor(hasSaid, { what: 'the guest to boot', timeoutMs: 60_000 })
  }

  /** Some writes as a guest makes them, of content or of zeros, anywhere on each disk. */
  async function write(rounds: number): Promise<void> {
    await using monitor = await world.guests.qmp(vmid)
    for (let round = 0; round < rounds; round += 1) {
      for (const drive of drives) {
        const device = drive === 'virtio0' ? '/machine/peripheral/virtio0/virtio-backend' : drive
        const [length, byte] = [512 * (1 + randomInt(600)), randomInt(3) === 0 ? 0 : 1 + randomInt(254)]
        const offset = bootBytes + 512 * randomInt((diskBytes - bootBytes - length) / 512)
        const what = byte === 0 ? 'write -z -u' : `write -P ${byte}`
        const line = `qemu-io -d ${device} "${what} ${offset} ${length}"`
        const said = await monitor.execute<string>('human-monitor-command', { 'command-line': line })
        assert.doesNotMatch(said, /error|fail/i)
        truthOf(drive).fill(byte, offset, offset + length)
      }
    }
  }

  /** Harmless for a guest that is on its way. */
  async function pressButton(): Promise<void> {
    try {
      await using monitor = await world.guests.qmp(vmid)
      await monitor.execute('system_powerdown')
    } catch (cause) {
      if (!isFault(cause)) throw cause
    }
  }

  /** Backs up, holds each disk of the backup against the truth, and says how each was read. */
  async function backUp(): Promise<string[]> {
    const log: string[] = []
    const [volid = asVolumeId('')] = await world.run({ vmids: [100] }, log)
    await using reader = await world.backup.open(volid)
    for (const drive of drives) {
      const target = memoryTarget(reader.disk(drive).sizeBytes)
      await restoreDisk(reader, drive, target)
      assert.ok(target.content.equals(truthOf(drive)), `${drive} of ${volid} is another:\n${log.join('\n')}`)
    }
    return drives.map((drive) => reader.disk(drive).reading?.how ?? '')
  }

  async function writeWhileOff(drive: string, offset: number): Promise<void> {
    const { path } = await pathOf(world, vmid, drive)
    await using file = await open(path, 'r+')
    await file.write(Buffer.alloc(512, 99), 0, 512, offset)
    truthOf(drive).fill(99, offset, offset + 512)
  }

  test('go on after a stop, a shutdown and a reboot, and say all that was written before and after', async () => {
    assert.deepEqual(await backUp(), ['scan', 'scan'])
    const ways: Readonly<Record<string, () => Promise<void>>> = {
      stop: async () => {
        await act(stopGuest)
        await start()
      },
      shutdown: async () => {
        await act(shutdownGuest, { timeout: 60 })
        await start()
      },
      reboot: async () => {
        await act(rebootGuest, { timeout: 60 })
        await untilBooted()
      },
      'a stop while it is paused': async () => {
        await world.guests.suspend(vmid)
        await act(stopGuest)
        await start()
      },
    }
    for (const [name, way] of Object.entries(ways)) {
      await write(randomInt(4))
      await way()
      assert.equal(existsSync(keptDir()), false)
      await write(randomInt(4))
      // Without a backup in between they go on as well.
      if (randomInt(2) === 0) await way()
      assert.deepEqual(await backUp(), ['changes', 'changes'], name)
    }
    await using monitor = await world.guests.qmp(vmid)
    for (const drive of drives) assert.equal((await dirtyBitmaps(monitor, drive)).length, 1)
  })

  test('say no more than was written', async () => {
    await backUp()
    await act(stopGuest)
    await start()
    await using monitor = await world.guests.qmp(vmid)
    const bytes = await Promise.all(drives.map((drive) => dirtyBitmaps(monitor, drive)))
    assert.deepEqual(
      bytes.flat().map(({ dirtyBytes }) => dirtyBytes),
      [0, 0],
    )
  })

  test('are not believed of a disk somebody has written to while the guest was off', async () => {
    await act(stopGuest)
    await writeWhileOff('scsi0', 5 * MiB)
    await start()
    await write(1)
    assert.deepEqual(await backUp(), ['scan', 'changes'])
    await write(1)
    await act(shutdownGuest, { timeout: 60 })
    await writeWhileOff('virtio0', 7 * MiB)
    await start()
    assert.deepEqual(await backUp(), ['changes', 'scan'])
    assert.deepEqual(await backUp(), ['changes', 'changes'])
  })

  test('are not believed after QEMU was killed, also when it had just gone on with them', async () => {
    await act(stopGuest)
    await start()
    await write(2)
    process.kill((await world.guests.listenerOf(vmid)).pid, 'SIGKILL')
    await waitFor(async () => !(await world.guests.isRunning(vmid)), { what: 'the end of QEMU', timeoutMs: 30_000 })
    await start()
    assert.deepEqual(await backUp(), ['scan', 'scan'])
  })

  test('end with a guest that switches itself off unasked', async () => {
    await write(1)
    await pressButton()
    await waitFor(async () => !(await world.guests.isRunning(vmid)), { what: 'its end', timeoutMs: 60_000 })
    assert.equal(existsSync(keptDir()), false)
    await start()
    assert.deepEqual(await backUp(), ['scan', 'scan'])
  })

  test('that cannot be read cost a look at the disk, and no start', async () => {
    await write(1)
    await act(stopGuest)
    const [directory = ''] = await readdir(keptDir())
    await truncate(join(keptDir(), directory, 'scsi0.qcow2'), 0)
    await start()
    assert.deepEqual(await backUp(), ['scan', 'changes'])
  })

  test('are true or gone when who ends the guest is killed, and the guest is not left halted', async () => {
    const guestsDir = join(world.settings.runDir, 'guests')
    const marks = [keptDir(), join(guestsDir, '100.ending')]
    for (let round = 0; round < 6; round += 1) {
      await write(1 + randomInt(2))
      const how = round % 2 === 0 ? 'stop' : 'shutdown'
      const { pid } = await world.guests.listenerOf(vmid)
      const [mark = '', delayMs] = [[...marks, `/proc/${pid}`][round % 3], randomInt(40)]
      const isReached = () => existsSync(mark) === !mark.startsWith('/proc')
      const argv = [...nodeFlags, ender, JSON.stringify(world.settings), '100', how]
      const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] })
      await once(child.stdout, 'data')
      await waitFor(isReached, { what: mark, timeoutMs: 60_000, everyMs: 1 })
      await systemClock.sleep(delayMs)
      child.kill('SIGKILL')
      await once(child, 'exit')
      // As the daemon does every second. Who was not halted yet runs on; who was asked to shut down may still do so.
      await world.guests.reapDead()
      if (how === 'stop' && (await world.guests.isRunning(vmid))) {
        assert.equal(await world.guests.isPaused(vmid), false)
        await act(stopGuest)
      } else {
        await pressButton()
        await waitFor(async () => !(await world.guests.isRunning(vmid)), { what: 'its end', timeoutMs: 60_000 })
      }
      await world.guests.reapDead()
      await start()
      await write(1)
      await backUp()
      assert.deepEqual((await readdir(guestsDir)).toSorted(), ['100', '100.json'])
    }
  })

  test('go with a disk that grows, and with one that moves', async () => {
    await act(stopGuest)
    await act(resizeDisk, { disk: 'scsi0', size: '+1M' })
    truth.set('scsi0', Buffer.concat([truthOf('scsi0'), Buffer.alloc(1 * MiB)]))
    await act(moveDisk, { disk: 'virtio0', storage: 'local', format: 'qcow2', delete: true })
    await act(moveDisk, { disk: 'virtio0', storage: 'local', format: 'raw', delete: true })
    await start()
    assert.deepEqual(await backUp(), ['scan', 'scan'])
  })

  test('go with their guest', async () => {
    await act(stopGuest)
    assert.equal(existsSync(keptDir()), true)
    await world.guests.removeConfig(vmid)
    assert.equal(existsSync(keptDir()), false)
  })
})
