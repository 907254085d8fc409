import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { sharesToWeight } from './cgroup-limits.ts'
import { Cgroups, parseMounts } from './cgroup.ts'

const hybrid = `tmpfs /sys/fs/cgroup tmpfs rw,relatime,mode=755 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0
`

test('the mount table names a tree per controller, also where two share one', () => {
  assert.deepEqual(parseMounts(hybrid), {
    v1: {
      cpu: '/sys/fs/cgroup/cpu,cpuacct',
      cpuacct: '/sys/fs/cgroup/cpu,cpuacct',
      memory: '/sys/fs/cgroup/memory',
    },
    v2: '/sys/fs/cgroup/unified',
    cpuset: undefined,
    all: ['unified', 'cpu,cpuacct', 'memory', 'systemd'].map((name) => `/sys/fs/cgroup/${name}`),
  })
  const unified = parseMounts('cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n')
  assert.deepEqual(unified, { v1: {}, v2: '/sys/fs/cgroup', cpuset: undefined, all: ['/sys/fs/cgroup'] })
})

test('shares become the weight of the same meaning', () => {
  assert.deepEqual([2, 1024, 262_144, 0].map(sharesToWeight), [1, 40, 10_000, 1])
})

test('a machine without any hierarchy is told apart', async () => {
  await assert.rejects(Cgroups.detect('proc /proc proc rw 0 0\n'), (error) => isFault(error, 'unavailable'))
})

const parent = `hktest-${process.pid}`

/** A shell that, once told, has two children, so that ending it all needs more than one signal. */
async function family(): Promise<{ leader: ChildProcess; grow: () => Promise<void> }> {
  const script = 'echo up; read line; sleep 60 & sleep 60 & echo grown; wait'
  const leader = spawn('sh', ['-c', script], { stdio: ['pipe', 'pipe', 'ignore'] })
  await once(leader.stdout, 'data')
  const grow = async () => {
    leader.stdin.write('go\n')
    await once(leader.stdout, 'data')
  }
  return { leader, grow }
}

test('a group on this machine holds processes, counts, limits, ends them and goes', async () => {
  const cgroups = await Cgroups.detect()
  const name = `${parent}/qemu-100`
  const { leader, grow } = await family()
  try {
    const { unkept } = await cgroups.createGroup(name, {
      memoryBytes: 64 << 20,
      cpuShares: 512,
      cpuQuota: 0.5,
      pids: 20,
    })
    assert.deepEqual(unkept, [])
    await cgroups.addProcess(name, leader.pid ?? 0)
    assert.deepEqual(await cgroups.processes(name), [leader.pid])
    await grow()
    const counters = await cgroups.counters(name)
    assert.equal((await cgroups.processes(name)).length, 3)
    assert.ok(counters.memoryBytes !== undefined && counters.cpuSeconds !== undefined)
    assert.deepEqual(await cgroups.list(parent), ['qemu-100'])
    const exit = once(leader, 'exit')
    await cgroups.killAll(name)
    assert.equal((await exit)[1], 'SIGKILL')
    assert.deepEqual(await cgroups.processes(name), [])
  } finally {
    leader.kill('SIGKILL')
    await cgroups.killAll(parent)
    await cgroups.removeGroup(parent)
  }
  assert.deepEqual(await cgroups.list(parent), [])
  assert.deepEqual(await cgroups.processes(name), [])
  await cgroups.killAll(name)
  await cgroups.removeGroup(name)
})

test('a limit on memory is in force: the kernel ends who goes beyond', async () => {
  const cgroups = await Cgroups.detect()
  const name = `${parent}/small`
  await cgroups.createGroup(name, { memoryBytes: 32 << 20 })
  const greedy = spawn('sh', ['-c', 'read line; exec head -c 200m /dev/zero | tail > /dev/null'], {
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  try {
    await cgroups.addProcess(name, greedy.pid ?? 0)
    greedy.stdin?.end('go\n')
    const [code] = (await once(greedy, 'exit')) as [number | null]
    assert.notEqual(code, 0)
  } finally {
    greedy.kill('SIGKILL')
    await cgroups.killAll(parent)
    await cgroups.removeGroup(parent)
  }
})

test('a group that forks all the time is ended', async () => {
  const cgroups = await Cgroups.detect()
  const name = `${parent}/forks`
  await cgroups.createGroup(name, { pids: 50 })
  const bomb = spawn('sh', ['-c', 'read line; while :; do (sleep 5 &) 2>/dev/null; done'], {
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  try {
    await cgroups.addProcess(name, bomb.pid ?? 0)
    bomb.stdin?.end('go\n')
    await cgroups.killAll(name)
  } finally {
    bomb.kill('SIGKILL')
    await cgroups.killAll(parent)
    await cgroups.removeGroup(parent)
  }
})

const unified = parseMounts(readFileSync('/proc/mounts', 'utf8')).v2

test('a group in which threads were parted is ended all the same', { skip: unified === undefined }, async () => {
  const cgroups = new Cgroups({ version: 'v2', tree: unified ?? '', controllers: ['freezer'] })
  const name = `${parent}-threads`
  const leader = spawn('sleep', ['60'], { stdio: 'ignore' })
  try {
    await cgroups.createGroup(`${name}/domain/part`)
    await cgroups.addProcess(`${name}/domain`, leader.pid ?? 0)
    const part = join(unified ?? '', name, 'domain', 'part')
    await writeFile(join(part, 'cgroup.type'), 'threaded')
    await writeFile(join(part, 'cgroup.threads'), String(leader.pid))
    await assert.rejects(readFile(join(part, 'cgroup.procs')))
    assert.deepEqual(await cgroups.processes(name), [leader.pid])
    const exit = once(leader, 'exit')
    await cgroups.killAll(name)
    assert.equal((await exit)[1], 'SIGKILL')
  } finally {
    leader.kill('SIGKILL')
    await cgroups.killAll(name)
    await cgroups.removeGroup(name)
  }
})

test('groups deeper than any path is long are ended and removed', async () => {
  const cgroups = await Cgroups.detect()
  const name = `${parent}/deep`
  await cgroups.createGroup(name)
  const { layout } = cgroups
  const top = layout.version === 'v2' ? layout.tree : Object.values(layout.trees)[0]
  const leader = spawn('sleep', ['60'], { stdio: 'ignore' })
  await using handles = new AsyncDisposableStack()
  let deepest = handles.use(await open(join(top ?? '', name)))
  for (let level = 0; level < 60; level += 1) {
    const below = `/proc/self/fd/${deepest.fd}/${'d'.repeat(100)}`
    await mkdir(below)
    deepest = handles.use(await open(below))
  }
  try {
    await writeFile(`/proc/self/fd/${deepest.fd}/cgroup.procs`, String(leader.pid))
    assert.deepEqual(await cgroups.processes(name), [leader.pid])
    await handles.disposeAsync()
    const exit = once(leader, 'exit')
    await cgroups.killAll(parent)
    assert.equal((await exit)[1], 'SIGKILL')
  } finally {
    leader.kill('SIGKILL')
    await cgroups.removeGroup(parent)
  }
  assert.deepEqual(await cgroups.list(parent), [])
})

test('a name cannot leave its tree', async () => {
  const cgroups = await Cgroups.detect()
  await assert.rejects(cgroups.removeGroup('../memory'), (error) => isFault(error, 'invalid'))
})

test('in the unified world limits are written in its own files and words', async () => {
  const tree = await mkdtemp(join(tmpdir(), 'hk-cgroup-'))
  try {
    const cgroups = new Cgroups({ version: 'v2', tree, controllers: ['cpu', 'memory', 'freezer'] })
    const group = join(tree, 'hakobune-x', 'qemu-7')
    await mkdir(group, { recursive: true })
    await writeFile(join(tree, 'hakobune-x', 'cgroup.controllers'), 'cpuset cpu io memory\n')
    const { unkept } = await cgroups.createGroup('hakobune-x/qemu-7', {
      memoryBytes: 1 << 20,
      cpuShares: 1024,
      cpuQuota: 1.5,
      swapBytes: 4096,
      pids: 9,
    })
    assert.deepEqual(unkept, ['pids'])
    assert.equal(await readFile(join(group, 'memory.swap.max'), 'utf8'), '4096')
    // The last that was written: the kernel adds them up.
    assert.equal(await readFile(join(tree, 'hakobune-x', 'cgroup.subtree_control'), 'utf8'), '+cpuset')
    assert.equal(await readFile(join(group, 'memory.max'), 'utf8'), '1048576')
    assert.equal(await readFile(join(group, 'cpu.weight'), 'utf8'), '40')
    assert.equal(await readFile(join(group, 'cpu.max'), 'utf8'), '150000 100000')
    await writeFile(join(group, 'memory.current'), '4096\n')
    await writeFile(join(group, 'cpu.stat'), 'usage_usec 2500000\nuser_usec 1\n')
    await writeFile(join(group, 'memory.stat'), 'anon 1024\ninactive_file 2048\n')
    await writeFile(join(group, 'memory.swap.current'), '512\n')
    await writeFile(join(group, 'io.stat'), '8:0 rbytes=100 wbytes=7 rios=1\n8:16 rbytes=20 wbytes=1 rios=1\n')
    assert.deepEqual(await cgroups.counters('hakobune-x/qemu-7'), {
      memoryBytes: 4096,
      idleCacheBytes: 2048,
      swapBytes: 512,
      diskReadBytes: 120,
      diskWriteBytes: 8,
      cpuSeconds: 2.5,
    })
    await cgroups.limit('hakobune-x/qemu-7', { cpuQuota: -1 })
    assert.equal(await readFile(join(group, 'cpu.max'), 'utf8'), 'max 100000')
    await writeFile(join(group, 'cgroup.events'), 'populated 1\nfrozen 1\n')
    await cgroups.freeze('hakobune-x/qemu-7', true)
    assert.equal(await readFile(join(group, 'cgroup.freeze'), 'utf8'), '1')
    assert.equal(await cgroups.isFrozen('hakobune-x/qemu-7'), true)
  } finally {
    await rm(tree, { recursive: true })
  }
})
