/** Processes that do one task after another. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { systemClock, waitFor } from '#base/clock.ts'
import type { UpidText } from '#base/ids.ts'
import { nodeFlags } from '#base/node-flags.ts'
import { allPids, isAlive, signalProcess, statOf } from '#host/programs/proc.ts'
import { settingsToEnv } from '#settings.ts'
import { contentOf } from '../../test/fixtures/tasks/operations.ts'
import { type TaskPlace, taskPlace } from '../../test/fixtures/tasks/place.ts'
import type { TaskService } from './service.ts'
import { asUpid, parseUpid } from './upid.ts'

const daemonEntry = fileURLToPath(new URL('../../test/fixtures/tasks/daemon.ts', import.meta.url))
const soon = { timeoutMs: 60_000 }

/** Started by this process and not ended. */
async function childrenHere(): Promise<number[]> {
  const stats = await Promise.all((await allPids()).map(statOf))
  return stats.flatMap((stat) => (stat?.parent === process.pid && stat.state !== 'Z' ? [stat.pid] : []))
}

/** Tasks on albums of these names, one after the other, none started before the process of the one before is idle or gone. */
async function inTurn(place: TaskPlace, tasks: TaskService, ...names: readonly string[]): Promise<UpidText[]> {
  const upids: UpidText[] = []
  for (const name of names) {
    upids.push(await tasks.start({ operation: 'mkalbum', params: { root: place.root, name }, user: 'root@pam' }))
    await tasks.wait(upids.at(-1) ?? '', soon)
    await waitFor(() => tasks.active().length === 0, { what: 'its process', ...soon })
  }
  return upids
}
const pidOf = (upid = '') => parseUpid(upid).pid

test('a process whose task ended well does the next; the daemon that stops leaves none behind', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const upids = await inTurn(place, tasks, 'a', 'b', 'c')
  assert.equal(new Set(upids.map(pidOf)).size, 1)
  for (const upid of upids) assert.equal((await tasks.status(upid)).exitstatus, 'OK')
  assert.deepEqual(
    (await tasks.list()).tasks.map(({ upid }) => upid),
    upids.toReversed(),
  )
  await tasks[Symbol.asyncDispose]()
  await waitFor(async () => (await childrenHere()).length === 0, { what: 'no worker', ...soon })
  assert.deepEqual(readdirSync(join(place.settings.stateDir, 'tasks')).toSorted(), upids.toSorted())
})

test('one that failed, printed, or left something open does no other', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  await writeFile(join(place.root, 'release'), '')
  for (const [operation, name] of [
    ['hold', 'failed'],
    ['chatty', 'said'],
    ['open', 'left'],
  ] as const) {
    const upid = await tasks.start({ operation, params: { root: place.root, name, end: 'badly' }, user: 'root@pam' })
    await tasks.wait(upid, soon)
    const { pid, pstart } = parseUpid(upid)
    await waitFor(async () => !(await isAlive(pid, pstart)), { what: `the end of what ${name} was done by`, ...soon })
    if (operation === 'chatty')
      assert.match(readFileSync(join(place.settings.stateDir, 'tasks', upid, 'output'), 'utf8'), /by the way/)
  }
})

test('a task whose process is killed is undone, and what that process did before stays done', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const [done = ''] = await inTurn(place, tasks, 'a')
  const held = await tasks.start({ operation: 'hold', params: { root: place.root, name: 'b' }, user: 'root@pam' })
  assert.equal(pidOf(held), pidOf(done))
  await waitFor(() => existsSync(join(place.root, 'b')), { what: 'it at work', ...soon })
  const { pid, pstart } = parseUpid(held)
  await signalProcess(pid, pstart, 'SIGKILL')
  assert.equal((await tasks.wait(held, soon)).exitstatus, 'interrupted: undone')
  assert.equal((await tasks.status(done)).exitstatus, 'OK')
  assert.deepEqual(Object.keys(await contentOf(place.root)), ['a', 'a/list', 'a/one', 'a/three', 'a/two'])
})

test('a task that is stopped is the last of its process, and no task after it hears of that', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const [done = ''] = await inTurn(place, tasks, 'a')
  await tasks.stop(done)
  const held = await tasks.start({ operation: 'hold', params: { root: place.root, name: 'b' }, user: 'root@pam' })
  await waitFor(() => existsSync(join(place.root, 'b')), { what: 'it at work', ...soon })
  await tasks.stop(held)
  assert.equal((await tasks.wait(held, soon)).exitstatus, 'interrupted by signal')
  const [next = ''] = await inTurn(place, tasks, 'c')
  assert.equal((await tasks.status(next)).exitstatus, 'OK')
  assert.notEqual(pidOf(next), pidOf(held))
})

test('tasks of one kind that begin within a second have names of their own', async () => {
  await using place = await taskPlace()
  const clock = { ...systemClock, now: () => 1_800_000_000_000 }
  const tasks = place.service({ clock })
  const upids: UpidText[] = []
  for (const _ of [1, 2, 3]) {
    await rm(join(place.root, 'a'), { recursive: true, force: true })
    upids.push(...(await inTurn(place, tasks, 'a')))
  }
  assert.equal(new Set(upids).size, 3)
  for (const upid of upids) assert.equal((await tasks.status(upid)).exitstatus, 'OK')
  assert.deepEqual(
    (await tasks.list()).tasks.map(({ upid }) => upid),
    upids.toReversed(),
  )
})

test('a process that waits for another task goes with its daemon, however that ends', async () => {
  await using place = await taskPlace()
  await writeFile(join(place.root, 'release'), '')
  const daemon = spawn(
    process.execPath,
    [...nodeFlags, daemonEntry, 'hold', JSON.stringify({ root: place.root, name: 'a' })],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: settingsToEnv(place.settings),
    },
  )
  const upid = await new Promise<string>((resolve) =>
    daemon.stdout.once('data', (data) => resolve(String(data).trim())),
  )
  const tasks = join(place.settings.stateDir, 'tasks')
  await waitFor(() => readdirSync(tasks).filter((name) => name.startsWith('.output-')).length > 0, {
    what: 'one that waits',
    ...soon,
  })
  await waitFor(() => existsSync(join(tasks, upid, 'end.json')), { what: 'end', ...soon })
  daemon.kill('SIGKILL')
  const { pid, pstart } = parseUpid(asUpid(upid))
  await waitFor(async () => !(await isAlive(pid, pstart)), { what: 'its end', ...soon })
})

test('a process nobody needs is sent away after its time, and one that is killed while it waits is forgotten', async () => {
  for (const how of ['its time', 'a kill']) {
    await using place = await taskPlace()
    const tasks = place.service(how === 'its time' ? { idleMs: 1 } : {})
    const [upid = ''] = await inTurn(place, tasks, 'a')
    const { pid, pstart } = parseUpid(asUpid(upid))
    if (how === 'a kill') await signalProcess(pid, pstart, 'SIGKILL')
    const isForgotten = () => readdirSync(join(place.settings.stateDir, 'tasks')).length === 1
    await waitFor(async () => !(await isAlive(pid, pstart)) && isForgotten(), { what: `the end by ${how}`, ...soon })
    const [next = ''] = await inTurn(place, tasks, 'b')
    assert.notEqual(pidOf(next), pid)
  }
})

test('as many wait as are useful, however many were at work', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const names = ['a', 'b', 'c', 'd', 'e', 'f']
  for (const name of names)
    await tasks.start({ operation: 'hold', params: { root: place.root, name }, user: 'root@pam' })
  await writeFile(join(place.root, 'release'), '')
  await waitFor(() => tasks.active().length === 0, { what: 'the end of all', ...soon })
  await waitFor(async () => (await childrenHere()).length === 4, { what: 'four that wait', ...soon })
})
