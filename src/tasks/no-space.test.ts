/** Tasks on a disk that is full, or becomes full under them. */
import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { contentOf } from '../../test/fixtures/tasks/operations.ts'
import { taskPlace } from '../../test/fixtures/tasks/place.ts'
import { smallDisk } from '../../test/fixtures/small-disk.ts'
import { isAlive } from '#host/programs/proc.ts'
import { heldLocks } from './lock.ts'
import { TaskLog } from './log.ts'
import { parseUpid } from './upid.ts'

const soon = { timeoutMs: 60_000 }
const user = 'root@pam'

/** A node whose state is on a small disk; what its tasks make is elsewhere. */
async function smallNode() {
  await using undo = new AsyncDisposableStack()
  const root = await mkdtemp(join(tmpdir(), 'hako-albums-'))
  undo.defer(() => rm(root, { recursive: true }))
  const folder = join(root, 'disk')
  await mkdir(folder)
  const disk = undo.use(await smallDisk(folder, 4 * MiB))
  const place = undo.use(await taskPlace(disk.path))
  const albums = join(root, 'albums')
  await mkdir(albums)
  const held = undo.move()
  return {
    disk,
    place,
    albums,
    tasksIn: join(place.settings.stateDir, 'tasks'),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  }
}

test('a task there is no space for is refused, and nobody hears of it', async () => {
  await using node = await smallNode()
  const tasks = node.place.service()
  const start = (name: string) => tasks.start({ operation: 'mkalbum', params: { root: node.albums, name }, user })
  await tasks.wait(await start('before'), soon)
  const directories = await tasksOn(node.tasksIn)
  await node.disk.fill()
  await assert.rejects(
    start('meanwhile'),
    (error) => isFault(error, 'exhausted') && /no space left/.test(error.message),
  )
  assert.equal((await tasks.list({ source: 'all' })).total, 1)
  assert.deepEqual(await tasksOn(node.tasksIn), directories)
  await node.disk.empty()
  assert.equal((await tasks.wait(await start('after'), soon)).exitstatus, 'OK')
  assert.deepEqual((await readdir(node.albums)).toSorted(), ['after', 'before'])
  await tasks[Symbol.asyncDispose]()
  // The output of the worker that waited goes with it.
  const isTidy = async () => (await readdir(node.tasksIn)).length === 2
  await waitFor(isTidy, { what: 'that nothing is left of the one refused', ...soon })
})

/** Beside them lies the output of the worker that waits for the next task. */
async function tasksOn(folder: string): Promise<string[]> {
  return (await readdir(folder)).filter((name) => name.startsWith('UPID:'))
}

test('a task whose journal finds no space is undone as soon as there is some, and keeps its lock until then', async () => {
  await using node = await smallNode()
  const tasks = node.place.service()
  // More than fits into the block the journal has already.
  const params = { root: node.albums, name: 'a', note: 'n'.repeat(8_000) }
  const upid = await tasks.start({ operation: 'hold', params, user })
  await waitFor(async () => (await readdir(node.albums)).includes('a'), { what: 'the task at work', ...soon })
  await node.disk.fill()
  await writeFile(join(node.albums, 'release'), '')
  await waitFor(async () => !(await readdir(node.albums)).includes('a'), { what: 'what it did undone', ...soon })
  assert.equal((await tasks.status(upid)).status, 'running')
  assert.deepEqual(await heldLocks(node.place.store), [{ name: 'album/a', upid }])

  // The daemon that comes now does not wait for space before it serves.
  await tasks[Symbol.asyncDispose]()
  const { pid, pstart } = parseUpid(upid)
  await waitFor(async () => !(await isAlive(pid, pstart)), { what: "end of the task's process", ...soon })
  const next = node.place.service()
  await next.recover()
  assert.equal((await next.status(upid)).status, 'running')

  await node.disk.empty()
  assert.match((await next.wait(upid, soon)).exitstatus ?? '', /^no space left on the device of .*journal'$/)
  assert.match(await next.rawLog(upid), /there was no space for the journal of this task/)
  assert.deepEqual(await heldLocks(node.place.store), [])
  assert.deepEqual(Object.keys(await contentOf(node.albums)), ['release'])
})

test('a log without space leaves lines out and says so', async () => {
  await using node = await smallNode()
  const path = join(node.disk.path, 'log')
  using log = new TaskLog(path)
  log.line('first')
  await node.disk.fill()
  const long = 'x'.repeat(5_000)
  for (let line = 0; line < 4; line += 1) log.line(long)
  assert.throws(() => log.end('OK'), /ENOSPC/)
  await node.disk.empty()
  log.line('later')
  log.end('OK')
  const lines = (await readFile(path, 'utf8')).split('\n')
  assert.deepEqual(lines.slice(-4), ['here lines are missing: the disk had no space for them', 'later', 'TASK OK', ''])
  assert.ok(
    lines.slice(1, -4).every((line) => /^x*$/.test(line)),
    lines.join('\n'),
  )
})
