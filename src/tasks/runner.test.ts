/** The worker that waits for the next task. */
import assert from 'node:assert/strict'
import { existsSync, readdirSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { systemRandom } from '#base/random.ts'
import { allPids, isAlive, signalProcess, statOf } from '#host/programs/proc.ts'
import { taskPlace, workerEntry } from '../../test/fixtures/tasks/place.ts'
import { TaskArchive } from './archive.ts'
import { Runner, type Worker } from './runner.ts'
import { parseUpid } from './upid.ts'

const soon = { timeoutMs: 60_000 }

async function runnerPlace(more: { readonly spareMs?: number } = {}) {
  await using undo = new AsyncDisposableStack()
  const { settings } = undo.use(await taskPlace())
  const archive = new TaskArchive(settings.stateDir)
  const runner = undo.use(new Runner({ settings, archive, random: systemRandom, workerEntry, ...more }))
  const release = undo.move()
  return { tasks: join(settings.stateDir, 'tasks'), runner, [Symbol.asyncDispose]: () => release.disposeAsync() }
}

async function sentAway(...workers: readonly Worker[]): Promise<void> {
  for (const worker of workers) worker.dismiss()
  await Promise.all(workers.map(({ ended }) => ended))
}

/** Started by this process and not ended. */
async function childrenHere(): Promise<number[]> {
  const stats = await Promise.all((await allPids()).map(statOf))
  return stats.flatMap((stat) => (stat?.parent === process.pid && stat.state !== 'Z' ? [stat.pid] : []))
}

test('the worker of the next task is started ahead, one and no more', async () => {
  await using here = await runnerPlace()
  await Promise.all([here.runner.prepare(), here.runner.prepare()])
  await here.runner.prepare()
  const [spare, ...none] = await childrenHere()
  assert.deepEqual(none, [])
  const [first, second] = [await here.runner.worker(), await here.runner.worker()]
  assert.equal(first.pid, spare)
  assert.notEqual(second.pid, spare)
  await sentAway(first, second)
})

test('a worker that is killed while it waits is forgotten with its file, and the next task has one of its own', async () => {
  await using here = await runnerPlace()
  await here.runner.prepare()
  const [spare = 0] = await childrenHere()
  await signalProcess(spare, (await statOf(spare))?.startTime ?? 0, 'SIGKILL')
  await waitFor(() => readdirSync(here.tasks).length === 0, { what: 'removal of its file', ...soon })
  const worker = await here.runner.worker()
  assert.notEqual(worker.pid, spare)
  assert.equal(await isAlive(worker.pid, worker.pstart), true)
  await sentAway(worker)
})

test('a worker nobody needs is sent away after its time', async () => {
  await using here = await runnerPlace({ spareMs: 1 })
  await here.runner.prepare()
  await waitFor(async () => (await childrenHere()).length === 0, { what: 'its end', ...soon })
  assert.deepEqual(readdirSync(here.tasks), [])
})

test('a task done by a worker that waited is a task like any other; the daemon that stops leaves none behind', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const ended: string[] = []
  for (const name of ['a', 'b']) {
    const upid = await tasks.start({ operation: 'hold', params: { root: place.root, name }, user: 'root@pam' })
    const { pid, pstart } = parseUpid(upid)
    assert.equal(await isAlive(pid, pstart), true)
    await writeFile(join(place.root, 'release'), '')
    assert.equal((await tasks.wait(upid, soon)).exitstatus, 'OK')
    assert.equal(existsSync(join(place.settings.stateDir, 'tasks', upid, 'output')), true)
    ended.push(upid)
    await rm(join(place.root, 'release'))
    await waitFor(async () => (await childrenHere()).some((child) => child !== pid), { what: 'the next one', ...soon })
  }
  await tasks[Symbol.asyncDispose]()
  await waitFor(async () => (await childrenHere()).length === 0, { what: 'no worker', ...soon })
  assert.deepEqual(readdirSync(join(place.settings.stateDir, 'tasks')).toSorted(), ended.toSorted())
})
