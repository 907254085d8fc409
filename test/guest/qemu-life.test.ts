/** The life of a virtual machine's process. The guests are tiny: no disk, nothing to boot, up in a blink. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { appendFile, chown, rm, symlink, truncate } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { nodeFlags } from '#base/node-flags.ts'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { MiB } from '#base/bytes.ts'
import type { Vmid } from '#base/ids.ts'
import { isAlive } from '#host/programs/proc.ts'
import { type GuestWorld, guestWorld } from './qemu-world.ts'

const starter = join(import.meta.dirname, '../fixtures/guests/start-and-wait.ts')

function startInAnotherProcess({ settings }: GuestWorld, vmids: readonly number[]): ChildProcess {
  const argv = [...nodeFlags, starter, JSON.stringify(settings), ...vmids.map(String)]
  return spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] })
}

/** Reads until the line appears. */
async function line(child: ChildProcess, text: string): Promise<void> {
  let seen = ''
  const { promise: appeared, resolve } = Promise.withResolvers<true>()
  child.stdout?.on('data', (part: Buffer) => {
    seen += part.toString()
    if (seen.includes(text)) resolve(true)
  })
  // At once: what follows may be a kill that must not come late.
  const signal = AbortSignal.timeout(60_000)
  await Promise.race([appeared, once(signal, 'abort').then(() => assert.fail(`'${text}' did not appear: ${seen}`))])
}

async function kill9(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL')
  await waitFor(() => child.signalCode !== null || child.exitCode !== null, { what: 'its death', timeoutMs: 60_000 })
}

async function pidOf({ guests }: GuestWorld, vmid: Vmid): Promise<number> {
  const { state } = await guests.status(vmid)
  assert.equal(state.state, 'running')
  return state.state === 'running' ? state.pid : 0
}

function statusOf(pid: number): Record<string, string> {
  const lines = readFileSync(`/proc/${pid}/status`, 'utf8').trim().split('\n')
  return Object.fromEntries(
    lines.map((text) => [text.slice(0, text.indexOf(':')), text.slice(text.indexOf(':') + 1).trim()]),
  )
}

/** The file of a limit in whatever hierarchy this machine has. */
function limit(group: string, v1: string, v2: string): string {
  const [controller = '', file = ''] = v1.split('/')
  const paths = [`/sys/fs/cgroup/${controller}/${group}/${file}`, `/sys/fs/cgroup/${group}/${v2}`]
  return readFileSync(paths.find((path) => existsSync(path)) ?? v1, 'utf8').trim()
}

function groupsLeft(group: string): string[] {
  const trees = ['', ...readdirSync('/sys/fs/cgroup')]
  return trees.map((tree) => join('/sys/fs/cgroup', tree, group)).filter((path) => existsSync(path))
}

/** What a stopped guest may leave: its logs. */
function filesLeft({ settings }: GuestWorld): string[] {
  const records = join(settings.runDir, 'guests')
  const names = existsSync(records) ? readdirSync(records, { recursive: true }).map(String) : []
  return names.filter((name) => name.includes('.') && !name.endsWith('.log'))
}

test('a guest starts, is paused, goes on, is reset and stops, and only its logs stay', async () => {
  await using world = await guestWorld()
  const { guests } = world
  const vmid = await world.define(100, { net0: `virtio=BC:24:11:00:00:01,bridge=${await world.addBridge()}` })
  const qmpStatus = async () => {
    const { state } = await guests.status(vmid)
    return state.state === 'running' ? state.qmpStatus : 'stopped'
  }
  await guests.start(vmid)
  assert.equal(await qmpStatus(), 'running')
  await guests.suspend(vmid)
  assert.equal(await qmpStatus(), 'paused')
  await guests.resume(vmid)
  assert.equal(await qmpStatus(), 'running')
  await guests.reset(vmid)
  assert.equal(await qmpStatus(), 'running')
  const pid = await pidOf(world, vmid)
  await guests.stop(vmid)
  assert.equal(await qmpStatus(), 'stopped')
  assert.equal(existsSync(`/proc/${pid}`), false)
  assert.deepEqual(groupsLeft(guests.groupOf(vmid)), [])
  assert.deepEqual(filesLeft(world), [])
  assert.deepEqual(
    readdirSync('/sys/class/net').filter((name) => name.startsWith(`hk${world.settings.instance}t`)),
    [],
  )
  await assert.rejects(guests.stop(vmid), /^Fault: VM 100 not running$/)
})

test('QEMU has a uid of its own, no capability, no way to gain one, and a system call filter', async () => {
  await using world = await guestWorld()
  const vmid = await world.define(107)
  await world.guests.start(vmid)
  const status = statusOf(await pidOf(world, vmid))
  const uid = String(world.settings.uidBase + 107)
  assert.deepEqual(status.Uid?.split(/\s+/), [uid, uid, uid, uid])
  assert.deepEqual(status.Gid?.split(/\s+/), [uid, uid, uid, uid])
  assert.equal(status.Groups, '')
  for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) assert.equal(Number(`0x${status[set]}`), 0, set)
  assert.equal(status.NoNewPrivs, '1')
  assert.equal(status.Seccomp, '2')
  assert.equal(statSync(world.guests.runDirOf(vmid)).mode & 0o777, 0o700)
})

test('a guest’s disk is open to its QEMU alone', async () => {
  await using world = await guestWorld()
  await world.addStorage()
  const volid = await world.storage.allocate({ storage: 'local', vmid: world.id(100), sizeBytes: MiB, format: 'raw' })
  const vmid = await world.define(100, { scsihw: 'virtio-scsi-pci', scsi0: `${volid},size=1M` })
  await world.guests.start(vmid)
  const { uid, mode } = statSync((await world.storage.location(volid)).path)
  assert.equal(uid, world.guests.uidOf(vmid))
  assert.equal(mode & 0o077, 0)
})

test('a guest’s limits are in force in its own control group', async () => {
  await using world = await guestWorld()
  const vmid = await world.define(100, { cpulimit: '0.5', cpuunits: '200', memory: '64' })
  await world.guests.start(vmid)
  const group = world.guests.groupOf(vmid)
  const pid = await pidOf(world, vmid)
  const isV1 = existsSync(`/sys/fs/cgroup/cpu/${group}`)
  const [quota, memory] = [
    limit(group, 'cpu/cpu.cfs_quota_us', 'cpu.max'),
    limit(group, 'memory/memory.limit_in_bytes', 'memory.max'),
  ]
  assert.equal(quota.split(' ')[0], '50000')
  assert.ok(Number(memory) > 64 * MiB && Number(memory) < 2048 * MiB, memory)
  if (isV1) assert.equal(limit(group, 'cpu/cpu.shares', ''), '2048')
  assert.ok(limit(group, 'cpu/cgroup.procs', 'cgroup.procs').split('\n').includes(String(pid)))
  const threads = readdirSync(`/proc/${pid}/task`).map((tid) => readFileSync(`/proc/${pid}/task/${tid}/cgroup`, 'utf8'))
  for (const text of threads) assert.match(text, new RegExp(`${group}$`, 'm'))
})

test('a guest survives the kill of whoever started it, and is adopted', async () => {
  await using world = await guestWorld()
  const vmid = await world.define(100)
  const child = startInAnotherProcess(world, [100])
  await line(child, 'started 100')
  const pid = await pidOf(world, vmid)
  await kill9(child)
  const { guests } = world
  assert.deepEqual(await guests.adopt(), [vmid])
  assert.equal(await pidOf(world, vmid), pid)
  assert.equal(await guests.startedBy(vmid), 'starter')
  await guests.suspend(vmid)
  await guests.resume(vmid)
  await guests.stop(vmid)
  // Its first parent is dead; until init reads its exit code it may be a zombie, which is no process.
  assert.ok(!existsSync(`/proc/${pid}`) || statusOf(pid).State?.startsWith('Z'))
})

test('a start that is killed on its way leaves a running guest or nothing', { timeout: 240_000 }, async (t) => {
  await using world = await guestWorld()
  const { guests } = world
  const vmid = await world.define(100, { net0: `virtio=BC:24:11:00:00:01,bridge=${await world.addBridge()}` })
  const ends = { running: 0, nothing: 0 }
  for (let round = 0; round < 12; round += 1) {
    const child = startInAnotherProcess(world, [100])
    await line(child, 'ready')
    // A start takes some 100 ms; the kills fall all over it.
    const deadline = performance.now() + round * 15
    await waitFor(() => performance.now() >= deadline, { what: 'the moment', timeoutMs: 60_000, everyMs: 1 })
    await kill9(child)
    const running = await guests.adopt()
    if (running.length > 0) {
      ends.running += 1
      assert.equal((await guests.status(vmid)).state.state, 'running')
      await guests.stop(vmid)
    } else {
      ends.nothing += 1
    }
    assert.deepEqual(filesLeft(world), [])
    assert.deepEqual(groupsLeft(guests.groupOf(vmid)), [])
    // Nothing stands in the way of the next start.
    await guests.start(vmid)
    await guests.stop(vmid)
  }
  t.diagnostic(JSON.stringify(ends))
  assert.ok(ends.nothing > 0, 'no kill fell into a start')
})

test('thirty guests are adopted', { timeout: 240_000 }, async () => {
  await using world = await guestWorld()
  const vmids = Array.from({ length: 30 }, (_, index) => 200 + index)
  for (const vmid of vmids) await world.define(vmid)
  const child = startInAnotherProcess(world, vmids)
  await line(child, 'started 229')
  await kill9(child)
  const fresh = world.another()
  assert.deepEqual(await fresh.adopt(), vmids)
  const listed = await fresh.list()
  assert.deepEqual(
    listed.map(({ vmid, state }) => [vmid, state.state]),
    vmids.map((vmid) => [vmid, 'running']),
  )
})

test('a guest that ended by itself is found stopped, and what it left is removed', async () => {
  await using world = await guestWorld()
  const { guests } = world
  const vmid = await world.define(100)
  await guests.start(vmid)
  const pid = await pidOf(world, vmid)
  const { startTime } = JSON.parse(readFileSync(join(world.settings.runDir, 'guests/100.json'), 'utf8')).process
  process.kill(pid, 'SIGKILL')
  await waitFor(async () => !(await isAlive(pid, startTime)), { what: 'its end', timeoutMs: 60_000 })
  assert.deepEqual((await guests.status(vmid)).state, { state: 'stopped' })
  assert.deepEqual(await guests.reapDead(), [vmid])
  assert.deepEqual(await guests.reapDead(), [])
  assert.deepEqual(filesLeft(world), [])
  assert.deepEqual(groupsLeft(guests.groupOf(vmid)), [])
  await guests.start(vmid)
})

test('of two starts at the same moment one wins, and the guest runs once', async () => {
  await using world = await guestWorld()
  const vmid = await world.define(100)
  const both = await Promise.allSettled([world.guests.start(vmid), world.another().start(vmid)])
  const refused = both.filter((one) => one.status === 'rejected')
  assert.equal(refused.length, 1)
  assert.match(String(refused[0]?.reason), /VM 100 already running/)
  await pidOf(world, vmid)
})

test('a start that QEMU refuses says why in its words and leaves nothing', async () => {
  await using world = await guestWorld()
  const vmid = await world.define(100, { args: '-device no-such-device' })
  await assert.rejects(world.guests.start(vmid), (fault) => {
    assert.ok(isFault(fault, 'failed'))
    assert.match(fault.message, /^QEMU did not start: .*'no-such-device' is not a valid device model name/)
    return true
  })
  assert.deepEqual(filesLeft(world), [])
  assert.deepEqual(groupsLeft(world.guests.groupOf(vmid)), [])
})

test('a start that is aborted leaves nothing', async () => {
  await using world = await guestWorld()
  const vmid = await world.define(100)
  const abort = new AbortController()
  const started = world.guests.start(vmid, { signal: abort.signal, log: () => abort.abort() })
  await assert.rejects(started)
  assert.equal(await world.guests.isRunning(vmid), false)
  assert.deepEqual(filesLeft(world), [])
})

test('a missing disk keeps a guest from starting, by name', async () => {
  await using world = await guestWorld()
  await world.addStorage()
  const vmid = await world.define(100, { scsi0: 'local:100/vm-100-disk-0.raw,size=1M' })
  await assert.rejects(world.guests.start(vmid), /vm-100-disk-0\.raw.* does not exist/)
  assert.deepEqual(filesLeft(world), [])
})

test('a log that grew too long is emptied, and a link in its place is not followed', async () => {
  await using world = await guestWorld()
  const { guests } = world
  const vmid = await world.define(100)
  await guests.start(vmid)
  const runDir = guests.runDirOf(vmid)
  await truncate(join(runDir, 'serial.log'), 17 * MiB)
  const victim = join(world.settings.stateDir, 'victim')
  await appendFile(victim, 'kept')
  await truncate(victim, 17 * MiB)
  await chown(victim, guests.uidOf(vmid), guests.uidOf(vmid))
  await symlink(victim, join(runDir, 'evil.log'))
  await guests.reapDead()
  assert.equal(statSync(join(runDir, 'serial.log')).size, 0)
  assert.equal(statSync(victim).size, 17 * MiB)
})

test('another socket in the place of the monitor is not spoken to, hides no guest, and keeps none from being stopped', async () => {
  await using world = await guestWorld()
  const { guests } = world
  const [victim, other] = [await world.define(100, { agent: '1' }), await world.define(101)]
  await Promise.all([guests.start(victim), guests.start(other)])
  const foreign = join(world.settings.stateDir, 'foreign.sock')
  const heard: string[] = []
  const server = createServer((socket) => socket.on('data', (part) => heard.push(part.toString('latin1'))))
  await once(server.listen(foreign), 'listening')
  for (const name of ['qmp.sock', 'qmp-long.sock', 'agent.sock']) {
    await rm(join(guests.runDirOf(victim), name))
    await symlink(foreign, join(guests.runDirOf(victim), name))
  }
  const states = (await guests.list()).map(({ vmid, state }) => [vmid, state.state])
  assert.deepEqual(states, [
    [victim, 'running'],
    [other, 'running'],
  ])
  await assert.rejects(guests.qmp(victim, 'long'), (error) => isFault(error, 'denied'))
  await assert.rejects(guests.agentExecute(victim, 'guest-ping'), (error) => isFault(error, 'unavailable'))
  const pid = await pidOf(world, victim)
  await guests.stop(victim)
  assert.equal(existsSync(`/proc/${pid}`), false)
  assert.deepEqual(heard, [])
  server.close()
})

test('what a running guest was started with stays in force until its next start', async () => {
  await using world = await guestWorld()
  const { guests } = world
  const vmid = await world.define(100, { cores: '1', name: 'before' })
  await guests.start(vmid)
  const change = { set: { cores: '2', name: 'after', memory: '32' }, delete: ['serial0'], revert: [] }
  await guests.applyChange(vmid, change)
  const { pendingItems } = await import('#guests/config.ts')
  const pending = async () =>
    Object.fromEntries(pendingItems(await guests.config(vmid)).map(({ key, ...item }) => [key, item]))
  assert.deepEqual((await pending()).cores, { value: '1', pending: '2', isDeleted: false })
  assert.deepEqual((await pending()).name, { value: 'after', isDeleted: false })
  assert.deepEqual((await pending()).serial0, { value: 'socket', isDeleted: true })
  const shown = async () => {
    const [listed] = await guests.list()
    const { name, options, processors, maxMemoryBytes } = await guests.status(vmid)
    assert.deepEqual({ ...listed, state: 0 }, { ...(await guests.status(vmid)), state: 0 })
    return [name, options.serial0, processors, maxMemoryBytes / MiB]
  }
  assert.deepEqual(await shown(), ['after', 'socket', 1, 16])
  await guests.applyChange(vmid, { set: {}, delete: [], revert: ['serial0'] })
  assert.deepEqual((await pending()).serial0, { value: 'socket', isDeleted: false })
  await guests.stop(vmid)
  assert.deepEqual((await pending()).cores, { value: '2', isDeleted: false })
  assert.deepEqual(await shown(), ['after', 'socket', 2, 32])
  await guests.start(vmid)
  await using monitor = await guests.qmp(vmid)
  assert.equal((await monitor.execute<unknown[]>('query-cpus-fast')).length, 2)
})
