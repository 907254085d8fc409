import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, mkdtemp, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import * as proc from './proc.ts'

test('a command name with blanks and brackets does not shift the fields', () => {
  const line = '42 (a) b (c) S 7 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 9000 1000000 256 18446744073709551615'
  assert.deepEqual(proc.parseStat(line), {
    pid: 42,
    command: 'a) b (c',
    state: 'S',
    parent: 7,
    startTime: 9000,
    cpuSeconds: 2,
    residentBytes: 256 * 4096,
  })
})

test('this process is alive under its own start time and under no other', async () => {
  const startTime = await proc.startTimeOf(process.pid)
  assert.ok(startTime !== undefined)
  assert.equal(await proc.isAlive(process.pid, startTime), true)
  assert.equal(await proc.isAlive(process.pid, startTime + 1), false)
  assert.deepEqual((await proc.commandLineOf(process.pid))[0], process.execPath)
})

test('a pid nobody has answers nothing', async () => {
  assert.equal(await proc.statOf(4_194_305), undefined)
  assert.deepEqual(await proc.commandLineOf(4_194_305), [])
})

test('a zombie counts as dead', async () => {
  // The shell starts a child and becomes a program that never reads a child's exit code.
  const parent = spawn('sh', ['-c', 'sleep 0.2 & echo $!; exec sleep 30'], { stdio: ['ignore', 'pipe', 'ignore'] })
  try {
    const [text] = (await once(parent.stdout, 'data')) as [Buffer]
    const pid = Number(text.toString())
    const zombie = await waitFor(
      async () => {
        const stat = await proc.statOf(pid)
        assert.ok(stat, 'the zombie was reaped by somebody')
        return stat.state === 'Z' && stat
      },
      { what: 'the end of the child', timeoutMs: 60_000 },
    )
    assert.equal(await proc.isAlive(pid, zombie.startTime), false)
  } finally {
    parent.kill('SIGKILL')
  }
})

test('ending a process that ignores SIGTERM takes no longer than its grace', async () => {
  const child = spawn('sh', ['-c', 'trap "" TERM; echo ready; while :; do sleep 1; done'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  await once(child.stdout, 'data')
  const pid = child.pid ?? 0
  const startTime = await proc.startTimeOf(pid)
  await proc.endProcess(pid, startTime, { graceMs: 50 })
  assert.equal(await proc.isAlive(pid, startTime ?? 0), false)
  await proc.endProcess(pid, startTime, { graceMs: 50 })
})

test('processes are found by their arguments', async () => {
  const mark = `mark-${process.pid}`
  const child = spawn('sh', ['-c', 'echo ready; read line', mark])
  await once(child.stdout, 'data')
  try {
    assert.deepEqual(await proc.findProcesses((argv) => argv.includes(mark)), [child.pid])
  } finally {
    child.kill('SIGKILL')
  }
})

test('counters of the machine are plausible', async () => {
  const memory = await proc.memoryCounters()
  assert.ok(memory.totalBytes > 2 ** 26 && memory.availableBytes <= memory.totalBytes)
  const [before, after] = [await proc.cpuCounters(), await proc.cpuCounters()]
  assert.ok(after.totalSeconds >= before.totalSeconds && before.busySeconds > 0)
  assert.ok((await proc.uptimeSeconds()) > 0)
  assert.match(await proc.bootId(), /^[0-9a-f-]{36}$/)
})

test('processor time is read without counting guests twice', () => {
  const text = 'cpu  100 0 100 700 100 0 0 0 90 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n'
  assert.deepEqual(proc.parseCpu(text), { busySeconds: 2, waitSeconds: 1, totalSeconds: 10 })
})

test('a program whose file an update has replaced is told from one whose file is there', async () => {
  const place = await mkdtemp(join(tmpdir(), 'hako-program-'))
  const [file, next] = [join(place, 'program'), join(place, 'program.new')]
  for (const path of [file, next]) await copyFile('/bin/sleep', path)
  const child = spawn(file, ['30'], { stdio: 'ignore' })
  try {
    await once(child, 'spawn')
    const pid = child.pid ?? 0
    assert.equal(await proc.isProgramReplaced(pid), false)
    await rename(next, file)
    assert.equal(await proc.isProgramReplaced(pid), true)
    assert.equal(await proc.isProgramReplaced(4_194_305), false)
  } finally {
    child.kill('SIGKILL')
    await rm(place, { recursive: true })
  }
})
