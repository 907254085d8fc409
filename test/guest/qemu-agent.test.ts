/** A guest with an operating system: what its agent, its network and its counters say, and how it ends. */
import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { systemClock, waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { systemRandom } from '#base/random.ts'
import { readGuestFile, startInGuest, statusInGuest, writeGuestFile } from '#guests/agent-files.ts'
import { nicsOf } from '#guests/qemu/nic.ts'
import { machine } from '#host/exec.ts'
import { ensureGuestImage } from '#lab/guest-image.ts'
import { createGuest } from '#operations/guest/create.ts'
import { suspendGuest, resumeGuest } from '#operations/guest/power.ts'
import { rebootGuest, shutdownGuest } from '#operations/guest/shutdown.ts'
import { PoolService } from '#pools/service.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { said, untilAgentAnswers } from './inside.ts'
import { type GuestWorld, guestWorld } from './qemu-world.ts'

suite('a guest with an operating system', { timeout: 600_000 }, () => {
  let world: GuestWorld
  let vmid: Vmid
  let bridge: string

  before(async () => {
    world = await guestWorld()
    await world.addStorage()
    bridge = await world.addBridge()
    vmid = world.id(100)
    const image = await ensureGuestImage({ host: machine(), cacheDir: world.settings.cacheDir })
    const options = {
      memory: '192',
      agent: '1',
      serial0: 'socket',
      vga: 'none',
      net0: `virtio,bridge=${bridge}`,
      scsihw: 'virtio-scsi-pci',
      scsi0: `local:0,import-from=${image.path}`,
    }
    const { guests, storage } = world
    const pools = new PoolService({ store: world.store, rightsMark: 'mark' })
    const deps = { guests, storage, pools, host: machine(), clock: systemClock, random: systemRandom }
    await perform(createGuest, { vmid, options, start: true }, deps, memoryJournal())
    await untilAgentAnswers(world, vmid)
  })
  after(() => world[Symbol.asyncDispose]())

  async function sh(script: string): Promise<string> {
    await using agent = await world.guests.agent(vmid)
    return await said(agent, script)
  }

  test('runs programs, with input, output and exit code', async () => {
    await using agent = await world.guests.agent(vmid)
    const pid = await startInGuest(agent, ['/bin/sh', '-c', 'cat; echo oops >&2; exit 3'], 'what goes in')
    const ended = await waitFor(
      async () => {
        const status = await statusInGuest(agent, pid)
        return status.exited && status
      },
      { what: 'the program', timeoutMs: 60_000 },
    )
    assert.equal(ended.exitcode, 3)
    assert.equal(ended['out-data'], 'what goes in')
    assert.equal(ended['err-data'], 'oops\n')
  })

  test('takes and gives files, whole and in part', async () => {
    await using agent = await world.guests.agent(vmid)
    const content = Buffer.from(new Uint8Array(3_000_000).map((_, at) => (at * 31) % 251))
    await writeGuestFile(agent, '/tmp/large', content)
    const whole = await readGuestFile(agent, '/tmp/large')
    assert.equal(whole.content.equals(content), true)
    assert.equal(whole.isTruncated, false)
    const part = await readGuestFile(agent, '/tmp/large', { offset: 1_000_000, count: 10 })
    assert.deepEqual(part.content, content.subarray(1_000_000, 1_000_010))
    assert.equal(part.isTruncated, true)
    const end = await readGuestFile(agent, '/tmp/large', { offset: 2_999_990, count: 10 })
    assert.equal(end.isTruncated, false)
    await assert.rejects(readGuestFile(agent, '/no/such/file'), /No such file or directory/)
  })

  test('has the address its bridge gave it, on the card with its MAC address', async () => {
    const { options } = await world.guests.config(vmid)
    const mac = nicsOf(options)[0]?.mac ?? ''
    const address = await world.network.addressOf(mac, { bridge })
    assert.ok(address)
    assert.match(await sh('ip addr'), new RegExp(`inet ${address.replaceAll('.', '\\.')}/`))
  })

  test('shows counters that grow with what it does', async () => {
    const facts = async () => {
      const { state, maxMemoryBytes, maxDiskBytes } = await world.another().status(vmid)
      assert.ok(state.state === 'running')
      assert.ok(state.memoryBytes > 0 && state.memoryBytes <= maxMemoryBytes)
      assert.ok(maxDiskBytes > 0)
      return state
    }
    const earlier = await facts()
    await sh('dd if=/dev/urandom of=/counted bs=1M count=4 && sync && rm /counted')
    const later = await facts()
    assert.ok(later.diskWriteBytes >= earlier.diskWriteBytes + 4 * 1024 * 1024)
    assert.ok(later.diskReadBytes >= earlier.diskReadBytes && later.diskReadBytes > 0)
    assert.ok(later.netInBytes > 0 && later.netOutBytes > 0)
    assert.ok(later.uptimeSeconds >= earlier.uptimeSeconds)
  })

  test('stands still while it is suspended, and says so', async () => {
    const { guests } = world
    await perform(suspendGuest, { vmid }, { guests }, memoryJournal())
    assert.equal(await guests.isPaused(vmid), true)
    await assert.rejects(guests.agentExecute(vmid, 'guest-ping'), /^Fault: QEMU guest agent is not running$/)
    await perform(resumeGuest, { vmid }, { guests }, memoryJournal())
    await untilAgentAnswers(world, vmid)
  })

  test('comes back from a reboot as another process with the same disk', async () => {
    const { guests } = world
    await sh('echo kept > /root-note && sync')
    const pidOf = async () => {
      const { state } = await guests.status(vmid)
      return state.state === 'running' ? state.pid : undefined
    }
    const pid = await pidOf()
    await perform(rebootGuest, { vmid, timeout: 60 }, { guests }, memoryJournal())
    assert.notEqual(await pidOf(), pid)
    await untilAgentAnswers(world, vmid)
    assert.equal(await sh('cat /root-note'), 'kept')
  })

  test('shuts down when asked, and nothing of its process stays', async () => {
    const { guests } = world
    const lines: string[] = []
    await perform(shutdownGuest, { vmid, timeout: 60 }, { guests }, memoryJournal(), {
      log: (line) => lines.push(line),
    })
    assert.deepEqual(lines, ['asked the guest agent to shut down'])
    assert.equal(await guests.isRunning(vmid), false)
    await assert.rejects(guests.agentExecute(vmid, 'guest-ping'), /^Fault: VM 100 is not running$/)
  })
})

test('a guest that does not follow its power button is stopped only by force', async () => {
  await using world = await guestWorld()
  const { guests } = world
  const vmid = await world.define(100)
  await guests.start(vmid)
  await assert.rejects(guests.shutdown(vmid, { timeoutMs: 300 }), /^Fault: VM quit\/powerdown failed - got timeout$/)
  assert.equal(await guests.isRunning(vmid), true)
  await assert.rejects(
    guests.agentExecute(vmid, 'guest-ping'),
    (fault) =>
      isFault(fault, 'unavailable') &&
      fault.message === 'No QEMU guest agent configured' &&
      fault.remedy?.includes(`hako vm set ${vmid} --agent 1`) === true,
  )
  await guests.shutdown(vmid, { timeoutMs: 300, forceStop: true })
  assert.equal(await guests.isRunning(vmid), false)
})
