/**
 * A guest that is renewed runs in exactly one process, whoever is killed when: the task, the new QEMU or the old one. And
 * what cannot be moved is refused, or goes on where it was.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { open, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { nodeFlags } from '#base/node-flags.ts'
import { MiB } from '#base/bytes.ts'
import { systemClock, waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import type { Options } from '#guests/config.ts'
import { machine } from '#host/exec.ts'
import { links } from '#host/network/ip.ts'
import { findProcesses } from '#host/programs/proc.ts'
import { namesOf } from '#network/names.ts'
import { renewGuest } from '#operations/guest/renew.ts'
import { memoryJournal, openJournal } from '#tasks/journal.ts'
import { perform, unwind } from '#tasks/perform.ts'
import { settingsToEnv } from '../../src/settings.ts'
import { overwriterSector } from '../fixtures/overwriter.ts'
import { type GuestWorld, guestWorld } from './qemu-world.ts'

const program = join(import.meta.dirname, '../fixtures/renew-worker.ts')
const mac = 'BC:24:11:00:0A:02'

suite('a move that is cut short', { timeout: 600_000 }, () => {
  let world: GuestWorld
  let vmid: Vmid
  let disk: string
  before(async () => {
    world = await guestWorld()
    await world.addStorage()
    const bridge = await world.addBridge()
    const place = { storage: 'local', vmid: world.id(100), sizeBytes: 24 * MiB, format: 'raw' } as const
    const volid = await world.storage.allocate(place)
    disk = (await world.storage.location(volid)).path
    await using file = await open(disk, 'r+')
    await file.write(overwriterSector(), 0, 512, 0)
    const net0 = `virtio=${mac},bridge=${bridge}`
    vmid = await world.define(100, { scsihw: 'virtio-scsi-pci', scsi0: volid, boot: 'order=scsi0', net0 })
    await world.guests.start(vmid)
  })
  after(() => world[Symbol.asyncDispose]())

  const home = () => join(world.settings.runDir, 'guests')
  const pidNow = async () => (await world.guests.listenerOf(vmid)).pid
  const isOfGuest = (argv: readonly string[]) => argv.some((part) => part.includes(world.guests.runDirOf(vmid)))
  const taps = async () => {
    const { isOurLink } = namesOf(world.settings.instance)
    return (await links(machine())).filter((link) => isOurLink(link) && link.kind === 'tun')
  }
  const renew = (signal = new AbortController().signal) =>
    perform(renewGuest, { vmid }, { guests: world.guests }, memoryJournal(), { signal })

  /** It is in that process and no other, has one cable, and writes on. */
  async function runsOnceIn(pid: number): Promise<void> {
    assert.equal(await pidNow(), pid)
    const isAlone = async () => isDeepStrictEqual(await findProcesses(isOfGuest), [pid])
    await waitFor(isAlone, { what: 'the end of all others', timeoutMs: 10_000 })
    assert.equal(await world.guests.isPaused(vmid), false)
    assert.deepEqual((await readdir(home())).toSorted(), ['100', '100.json'])
    assert.deepEqual(
      (await taps()).map(({ isUp }) => isUp),
      [true],
    )
    assert.equal((await world.store.list('network/taps/')).length, 1)
    const now = await readFile(disk)
    await waitFor(async () => !(await readFile(disk)).equals(now), { what: 'its next block', timeoutMs: 60_000 })
  }

  /** What the guest runs with is said to be this, until that is forgotten. */
  let known: Options | undefined
  const pretend = (more: Options) =>
    world.guests.changeRunning(vmid, (options) => ({ ...(known ??= options), ...more }))

  const birthplaces = async () => (await readdir(home())).filter((name) => name.includes('.to-'))
  const isSending = async () => {
    const inside = await Promise.all((await birthplaces()).map((name) => readdir(join(home(), name)).catch(() => [])))
    return inside.flat().includes('state.sock')
  }
  const hasTakenOver = async () => (await readFile(join(home(), '100.json'), 'utf8')).includes('"left"')

  /** Kills a renewal in a process of its own some milliseconds after its moment, and does what a recovery does. */
  async function killRenewal(moment: () => Promise<boolean>, ms: number): Promise<void> {
    const journal = join(world.settings.stateDir, `journal-${systemClock.now()}`)
    const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...settingsToEnv(world.settings) }
    const argv = [...nodeFlags, program, journal, String(vmid)]
    const child = spawn(process.execPath, argv, { stdio: ['ignore', 'ignore', 'inherit'], env })
    const ended = once(child, 'exit') as Promise<[number | null, string | null]>
    const isNow = async () => child.exitCode !== null || moment()
    await waitFor(isNow, { what: 'its moment', timeoutMs: 60_000, everyMs: 1 })
    await systemClock.sleep(ms) // The moment of death is the point of this test.
    child.kill('SIGKILL')
    const [code, signal] = await ended
    assert.ok(signal === 'SIGKILL' || code === 0, `the worker ended by itself with ${code}`)
    await using left = await openJournal(journal)
    await unwind(renewGuest, { vmid }, { guests: world.guests }, left)
  }

  test('the task is killed while it sends, or after the guest was taken over: it runs in one process', async () => {
    for (const moment of [isSending, hasTakenOver, async () => (await birthplaces()).length > 0, hasTakenOver]) {
      await killRenewal(moment, Math.random() * 30)
      await runsOnceIn(await pidNow())
    }
  })

  test('the new QEMU is killed while the guest is sent: it goes on in the old one', async () => {
    const pid = await pidNow()
    await pretend({ migrate_speed: '1' })
    const failed = assert.rejects(renew(), /^Fault: VM 100 was not moved: /)
    await waitFor(isSending, { what: 'the sending', timeoutMs: 60_000, everyMs: 1 })
    for (const other of await findProcesses(isOfGuest)) if (other !== pid) process.kill(other, 'SIGKILL')
    await failed
    await runsOnceIn(pid)
  })

  test('an abort while the guest is sent: it goes on in the old one', async () => {
    const [pid, abort] = [await pidNow(), new AbortController()]
    const failed = assert.rejects(renew(abort.signal), /interrupted/)
    await waitFor(isSending, { what: 'the sending', timeoutMs: 60_000, everyMs: 1 })
    abort.abort()
    await failed
    await runsOnceIn(pid)
  })

  test('a QEMU that does not start, or cannot take the state, is ended, and its words are told', async () => {
    const pid = await pidNow()
    await pretend({ args: '-device nonsense' })
    await assert.rejects(renew(), /QEMU did not start: .*'nonsense' is not a valid device model name/)
    await runsOnceIn(pid)
    await pretend({ memory: '32' })
    await assert.rejects(renew(), /VM 100 was not moved: .*(Invalid argument|Size mismatch|Length mismatch)/i)
    await pretend({})
    await runsOnceIn(pid)
  })

  test('what is not in QEMU alone keeps the guest where it is, and is named with reason and remedy', async () => {
    const pid = await pidNow()
    assert.deepEqual(await world.guests.renewals.obstacles(vmid), [])
    await pretend({ virtiofs0: 'share', usb1: 'host=1-2', serial1: '/dev/ttyS0', tpmstate0: 'local:8' })
    const named = (await world.guests.renewals.obstacles(vmid)).map(({ what }) => what)
    assert.deepEqual(named, ['virtiofs0', 'usb1', 'serial1', 'tpmstate0'])
    await pretend({ virtiofs0: 'share' })
    await assert.rejects(renew(), (fault) => {
      assert.ok(isFault(fault, 'conflict'))
      assert.match(
        fault.message,
        /^VM 100 cannot be renewed while it runs: virtiofs0: a folder of the node is served by/,
      )
      assert.equal(fault.remedy, 'Take virtiofs0 out first, or stop the guest and start it anew instead.')
      return true
    })
    await pretend({})
    await world.guests.suspend(vmid)
    await assert.rejects(renew(), /cannot be renewed while it runs: the guest: it does not run but is 'paused'/)
    await world.guests.resume(vmid)
    await runsOnceIn(pid)
  })

  // Last: the guest does not survive it.
  test('the old QEMU is killed while the guest is sent: that is said, and nothing is left', async () => {
    const pid = await pidNow()
    await pretend({ migrate_speed: '1' })
    const failed = assert.rejects(renew(), (fault) => {
      assert.ok(isFault(fault, 'failed'))
      assert.equal(fault.message, 'VM 100 ended while it was to be moved')
      assert.equal(fault.remedy, 'Start it again: `hako vm start 100`.')
      return true
    })
    await waitFor(isSending, { what: 'the sending', timeoutMs: 60_000, everyMs: 1 })
    process.kill(pid, 'SIGKILL')
    await failed
    await world.guests.adopt()
    assert.deepEqual(await findProcesses(isOfGuest), [])
    assert.deepEqual(await taps(), [])
    assert.deepEqual(await readdir(home()), ['100'])
    await world.guests.start(vmid)
    await runsOnceIn(await pidNow())
  })
})
