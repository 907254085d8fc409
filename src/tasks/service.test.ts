import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { systemClock, waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { settingsToEnv } from '#settings.ts'
import { contentOf } from '../../test/fixtures/tasks/operations.ts'
import { type TaskPlace, taskPlace } from '../../test/fixtures/tasks/place.ts'
import { heldLocks } from './lock.ts'
import type { TaskService } from './service.ts'
import { parseUpid } from './upid.ts'

const soon = { timeoutMs: 60_000 }
const user = 'root@pam'

const release = (place: TaskPlace) => writeFile(join(place.root, 'release'), '')
const isHeld = (place: TaskPlace, name: string) =>
  waitFor(() => existsSync(join(place.root, name)), { what: `task on ${name} at work`, ...soon })

async function textOf(tasks: TaskService, upid: string): Promise<string[]> {
  return (await tasks.log(upid, { start: 0, limit: 0 })).lines.map(({ t }) => t)
}

function startHold(tasks: TaskService, { root }: TaskPlace, name: string, more: Record<string, string> = {}) {
  return tasks.start({ operation: 'hold', params: { root, name, ...more }, user })
}

test('a task is known at once, runs in its own process, and ends OK', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const upid = await tasks.start({ operation: 'hold', params: { root: place.root, name: 'a' }, user: 'joe@pve!ci' })
  assert.match(upid, /^UPID:testnode:[0-9A-F]{8}:[0-9A-F]{8,9}:[0-9A-F]{8}:hold:a:joe@pve!ci:$/)
  assert.notEqual(parseUpid(upid).pid, process.pid)
  const running = await tasks.status(upid)
  assert.deepEqual(
    [running.status, running.exitstatus, running.user, running.tokenid],
    ['running', undefined, 'joe@pve', 'ci'],
  )
  assert.deepEqual(
    tasks.active().map((item) => [item.upid, item.status]),
    [[upid, 'RUNNING']],
  )
  assert.deepEqual([await tasks.isMentioned(place.root), await tasks.isMentioned('/elsewhere')], [true, false])
  await release(place)
  const ended = await tasks.wait(upid, soon)
  assert.deepEqual([ended.status, ended.exitstatus], ['stopped', 'OK'])
  assert.deepEqual(await heldLocks(place.store), [])
  await waitFor(() => tasks.active().length === 0, { what: 'no active task', ...soon })
  assert.equal(await tasks.isMentioned(place.root), false)
})

test('a task that is over has its log, whole and in part, and what it made', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const upid = await tasks.start({ operation: 'mkalbum', params: { root: place.root, name: 'a' }, user })
  assert.equal((await tasks.wait(upid, soon)).exitstatus, 'OK')
  assert.deepEqual(await textOf(tasks, upid), ['wrote one', 'wrote two', 'wrote three', 'TASK OK'])
  assert.deepEqual(await tasks.log(upid, { start: 1, limit: 1 }), { lines: [{ n: 2, t: 'wrote two' }], total: 4 })
  assert.equal(await tasks.rawLog(upid), 'wrote one\nwrote two\nwrote three\nTASK OK\n')
  assert.deepEqual(Object.keys(await contentOf(place.root)), ['a', 'a/list', 'a/one', 'a/three', 'a/two'])
})

test('a task that fails says why in its status and log, and what it began is undone', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  await release(place)
  const upid = await startHold(tasks, place, 'a', { end: 'badly', password: 'vinyl' })
  assert.equal((await tasks.wait(upid, soon)).exitstatus, 'the needle broke, password ********')
  assert.deepEqual(await textOf(tasks, upid), [
    'opening with ********',
    'second line',
    'Buy a new needle.',
    'TASK ERROR: the needle broke, password ********',
  ])
  assert.deepEqual(await contentOf(place.root), { release: '' })
  assert.deepEqual(await heldLocks(place.store), [])
})

test('warnings are counted in the status and marked in the log', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  await release(place)
  const upid = await startHold(tasks, place, 'a', { end: 'with warnings' })
  assert.equal((await tasks.wait(upid, soon)).exitstatus, 'WARNINGS: 2')
  assert.deepEqual(await textOf(tasks, upid), ['WARN: dust', 'WARN: scratches', 'TASK WARNINGS: 2'])
})

test('a running task shows its phase; stopping it undoes what it began', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const upid = await startHold(tasks, place, 'a')
  await isHeld(place, 'a')
  const status = await waitFor(
    async () => {
      const now = await tasks.status(upid)
      return now.phase !== undefined && now
    },
    { what: 'phase', ...soon },
  )
  assert.deepEqual([status.status, status.phase, status.fraction], ['running', 'waiting', 0.5])
  assert.deepEqual(await heldLocks(place.store), [{ name: 'album/a', upid }])
  await tasks.stop(upid)
  assert.equal((await tasks.wait(upid, soon)).exitstatus, 'interrupted by signal')
  assert.equal((await textOf(tasks, upid)).at(-1), 'TASK ERROR: interrupted by signal')
  assert.deepEqual(await contentOf(place.root), {})
  assert.deepEqual(await heldLocks(place.store), [])
  await tasks.stop(upid)
})

test('a task that hears no signal is killed when asked again, and undone all the same', async () => {
  await using place = await taskPlace()
  let now = 0
  const tasks = place.service({ clock: { ...systemClock, monotonic: () => performance.now() + now } })
  const upid = await tasks.start({ operation: 'deaf', params: { root: place.root, name: 'a' }, user })
  await isHeld(place, 'a')
  await tasks.stop(upid)
  await tasks.stop(upid)
  assert.equal((await tasks.status(upid)).status, 'running')
  now += 10_000
  await tasks.stop(upid)
  assert.equal((await tasks.wait(upid, soon)).exitstatus, 'interrupted: undone')
  assert.deepEqual(await contentOf(place.root), {})
})

test('a secret parameter reaches the task and no file', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  await release(place)
  const password = 'xyzzy-plugh-4711'
  for (const end of ['well', 'badly']) {
    const upid = await startHold(tasks, place, end, { end, password })
    await tasks.wait(upid, soon)
    assert.equal((await textOf(tasks, upid))[0], 'opening with ********')
  }
  const names = await readdir(place.settings.stateDir, { recursive: true, withFileTypes: true })
  const files = names.filter((entry) => entry.isFile())
  assert.ok(files.length > 10)
  for (const { parentPath, name } of files) {
    assert.ok(!(await readFile(join(parentPath, name))).includes(password), `the password is in ${parentPath}/${name}`)
  }
})

test('two tasks on one object run one after the other', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const first = await startHold(tasks, place, 'a')
  await isHeld(place, 'a')
  const second = await startHold(tasks, place, 'a')
  await waitFor(async () => (await tasks.rawLog(second)).includes('waiting'), { what: 'second task waiting', ...soon })
  assert.deepEqual(await textOf(tasks, second), [`waiting for lock 'album/a', held by task ${first}`])
  await release(place)
  assert.deepEqual(
    [(await tasks.wait(first, soon)).exitstatus, (await tasks.wait(second, soon)).exitstatus],
    ['OK', 'OK'],
  )
})

test('a task stopped while it waits for a lock never touches the object', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const first = await startHold(tasks, place, 'a')
  await isHeld(place, 'a')
  const second = await startHold(tasks, place, 'a')
  await waitFor(async () => (await tasks.rawLog(second)).includes('waiting'), { what: 'second task waiting', ...soon })
  await tasks.stop(second)
  assert.match((await tasks.wait(second, soon)).exitstatus ?? '', /^interrupted/)
  assert.deepEqual(await heldLocks(place.store), [{ name: 'album/a', upid: first }])
  assert.deepEqual(await contentOf(place.root), { a: 'held' })
  await release(place)
  assert.equal((await tasks.wait(first, soon)).exitstatus, 'OK')
})

test('a worker that is killed is found and undone at once', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const upid = await startHold(tasks, place, 'a')
  await isHeld(place, 'a')
  process.kill(parseUpid(upid).pid, 'SIGKILL')
  assert.equal((await tasks.wait(upid, soon)).exitstatus, 'interrupted: undone')
  assert.deepEqual(await textOf(tasks, upid), [
    'the process of this task ended unexpectedly',
    'TASK ERROR: interrupted: undone',
  ])
  assert.deepEqual(await contentOf(place.root), {})
  assert.deepEqual(await heldLocks(place.store), [])
})

const fixture = (name: string) => fileURLToPath(new URL(`../../test/fixtures/tasks/${name}`, import.meta.url))
const [daemonEntry, returningDaemonEntry] = [fixture('daemon.ts'), fixture('returning-daemon.ts')]

/** Starts a daemon that starts a task, and kills the daemon once the task is at work. */
async function startedByDeadDaemon(place: TaskPlace, operation: string, params: object): Promise<string> {
  const argv = ['--disable-warning=ExperimentalWarning', daemonEntry, operation, JSON.stringify(params)]
  const daemon = spawn(process.execPath, argv, {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: settingsToEnv(place.settings),
  })
  const ended = new Promise((resolve) => daemon.once('exit', resolve))
  const [said] = await new Promise<string[]>((resolve) => daemon.stdout.once('data', (data) => resolve([String(data)])))
  const upid = said?.trim() ?? ''
  await isHeld(place, 'a')
  daemon.kill('SIGKILL')
  await ended
  return upid
}

test('a task outlives a daemon that is killed; the next daemon takes it over', async () => {
  await using place = await taskPlace()
  const upid = await startedByDeadDaemon(place, 'hold', { root: place.root, name: 'a' })
  const tasks = place.service()
  await tasks.recover()
  assert.deepEqual(
    tasks.active().map((item) => item.upid),
    [upid],
  )
  assert.deepEqual(await heldLocks(place.store), [{ name: 'album/a', upid }])
  await release(place)
  assert.equal((await tasks.wait(upid, soon)).exitstatus, 'OK')
  await waitFor(() => tasks.active().length === 0, { what: 'no active task', ...soon })
})

test('a daemon that returns after everything died stays up until all is undone', async () => {
  await using place = await taskPlace()
  const upid = await startedByDeadDaemon(place, 'hold', { root: place.root, name: 'a' })
  process.kill(parseUpid(upid).pid, 'SIGKILL')
  const returned = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', returningDaemonEntry], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: settingsToEnv(place.settings),
  })
  const said: string[] = []
  returned.stdout.on('data', (data) => said.push(String(data)))
  await new Promise((resolve) => returned.once('close', resolve))
  assert.deepEqual(said, ['recovered\n'])
  assert.deepEqual(await contentOf(place.root), {})
  assert.equal((await place.service().status(upid)).exitstatus, 'interrupted: undone')
})

test('an adopted task can be stopped, and is undone when its process is killed', async () => {
  await using place = await taskPlace()
  const upid = await startedByDeadDaemon(place, 'hold', { root: place.root, name: 'a' })
  const tasks = place.service()
  await tasks.recover()
  process.kill(parseUpid(upid).pid, 'SIGKILL')
  assert.equal((await tasks.wait(upid, soon)).exitstatus, 'interrupted: undone')
  assert.deepEqual(await contentOf(place.root), {})
})

test('after everything was killed, recovery undoes and frees the locks before it returns', async () => {
  await using place = await taskPlace()
  const upid = await startedByDeadDaemon(place, 'hold', { root: place.root, name: 'a' })
  const { pid } = parseUpid(upid)
  process.kill(pid, 'SIGKILL')
  const tasks = place.service()
  await tasks.recover()
  const [status, content, locks] = [await tasks.status(upid), await contentOf(place.root), await heldLocks(place.store)]
  if (status.status === 'running') await tasks.wait(upid, soon) // The killed process was not reaped yet.
  else assert.deepEqual([status.exitstatus, content, locks], ['interrupted: undone', {}, []])
  assert.deepEqual([await contentOf(place.root), await heldLocks(place.store)], [{}, []])
})

test('a lock whose task is over or unknown is freed by recovery', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const upid = await tasks.start({ operation: 'mkalbum', params: { root: place.root, name: 'a' }, user })
  await tasks.wait(upid, soon)
  const unknown = 'UPID:testnode:00000001:00000001:00000001:hold:a:root@pam:'
  const elsewhere = 'UPID:othernode:00000001:00000001:00000001:hold:a:root@pam:'
  const locks = { 'locks/a': upid, 'locks/b': unknown, 'locks/c': elsewhere }
  await place.store.transact(
    [],
    Object.entries(locks).map(([put, holder]) => ({ put, value: { upid: holder } })),
  )
  await tasks.recover()
  assert.deepEqual(await heldLocks(place.store), [{ name: 'c', upid: elsewhere }])
})

test('a recovery that dies each time is given up after three attempts, with its last words', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const upid = await tasks.start({ operation: 'doomed', params: { root: place.root, name: 'a' }, user })
  const { exitstatus } = await tasks.wait(upid, soon)
  assert.match(exitstatus ?? '', /^interrupted: not undone, .*Error: the undo is broken/)
  assert.deepEqual(await heldLocks(place.store), [])
  const output = await readFile(join(place.settings.stateDir, 'tasks', upid, 'output'), 'utf8')
  assert.equal(output.split('the undo is broken').length - 1, 3)
})

test('what a daemon was about to accept when it died is swept away', async () => {
  await using place = await taskPlace()
  const tasks = join(place.settings.stateDir, 'tasks')
  const half = 'UPID:testnode:00000001:00000001:00000001:hold:a:root@pam:'
  for (const name of [half, '.removed-x', '.output-y']) await mkdir(join(tasks, name), { recursive: true })
  await place.service().recover()
  assert.deepEqual(await readdir(tasks), [])
})

test('so many tasks run at once; the others wait, and can be stopped while they do', async () => {
  await using place = await taskPlace()
  const tasks = place.service({ runningAtOnce: 1 })
  const first = await startHold(tasks, place, 'a')
  await isHeld(place, 'a')
  const second = await startHold(tasks, place, 'b')
  const third = await startHold(tasks, place, 'c')
  assert.equal(tasks.active().length, 3)
  await tasks.stop(second)
  assert.match((await tasks.wait(second, soon)).exitstatus ?? '', /^interrupted/)
  assert.deepEqual(await contentOf(place.root), { a: 'held' })
  await release(place)
  assert.equal((await tasks.wait(third, soon)).exitstatus, 'OK')
  assert.equal((await tasks.wait(first, soon)).exitstatus, 'OK')
})

test('when too many wait, no more are accepted', async () => {
  await using place = await taskPlace()
  const tasks = place.service({ runningAtOnce: 1 })
  const started = [await startHold(tasks, place, 'a')]
  for (const name of ['b', 'c', 'd', 'e']) started.push(await startHold(tasks, place, name))
  await assert.rejects(
    startHold(tasks, place, 'f'),
    (error) => isFault(error, 'exhausted') && /4 wait/.test(error.message),
  )
  await release(place)
  for (const upid of started) assert.equal((await tasks.wait(upid, soon)).exitstatus, 'OK')
})

test('the oldest finished tasks are forgotten, running ones never', async () => {
  await using place = await taskPlace()
  const tasks = place.service({ kept: 2 })
  const running = await startHold(tasks, place, 'held')
  await isHeld(place, 'held')
  const ended: string[] = []
  for (const name of ['a', 'b', 'c', 'd']) {
    ended.push(await tasks.start({ operation: 'mkalbum', params: { root: place.root, name }, user }))
    await tasks.wait(ended.at(-1) ?? '', soon)
  }
  const kept = async () => (await tasks.list({ source: 'all' })).tasks.map(({ upid }) => upid)
  await waitFor(async () => (await kept()).length === 3, { what: 'old tasks forgotten', ...soon })
  assert.deepEqual(await kept(), [ended[3], ended[2], running])
  await assert.rejects(tasks.status(ended[0] ?? ''), (error) => isFault(error) && error.fields?.upid === 'no such task')
  await release(place)
  await tasks.wait(running, soon)
  await waitFor(() => tasks.active().length === 0, { what: 'no active task', ...soon })
  assert.ok((await kept()).includes(running), 'what ended last is kept, however long ago it started')
})

test('the list is filtered, counted and paged', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const started = [
    await tasks.start({ operation: 'mkalbum', params: { root: place.root, name: '100' }, user }),
    await tasks.start({ operation: 'mkalbum', params: { root: place.root, name: '101' }, user: 'joe@pve' }),
    await tasks.start({
      operation: 'mkalbum',
      params: { root: join(place.root, 'none'), name: 'x' },
      user: 'joe@pve!ci',
    }),
  ]
  for (const upid of started) await tasks.wait(upid, soon)
  const running = await startHold(tasks, place, '102')
  const [a, b, c] = started
  const found = async (filter: Parameters<TaskService['list']>[0]) =>
    (await tasks.list(filter)).tasks.map(({ upid }) => upid)
  assert.deepEqual(await found({}), [c, b, a])
  assert.deepEqual(await found({ source: 'active' }), [running])
  assert.deepEqual(await found({ source: 'all' }), [running, c, b, a])
  assert.deepEqual(await tasks.list({ start: 1, limit: 1 }).then(({ tasks: page, total }) => [page[0]?.upid, total]), [
    b,
    3,
  ])
  assert.deepEqual(await found({ userfilter: 'JOE' }), [c, b])
  assert.deepEqual(await found({ visibleTo: 'joe@pve' }), [c, b])
  assert.deepEqual(await found({ visibleTo: 'joe@pve!ci' }), [c])
  assert.deepEqual(await found({ vmid: 101 }), [b])
  assert.deepEqual(await found({ typefilter: 'hold', source: 'all' }), [running])
  assert.deepEqual(await found({ errors: true, source: 'all' }), [c])
  assert.deepEqual(await found({ statusfilter: ['ok', 'warning'] }), [b, a])
  assert.deepEqual(await found({ statusfilter: ['error'] }), [c])
  assert.deepEqual(await found({ since: parseUpid(running).starttime + 100 }), [])
  assert.deepEqual(await found({ until: parseUpid(running).starttime }), [c, b, a])
  await release(place)
  await tasks.wait(running, soon)
})

test('an identifier that cannot be read, or that nobody knows, is refused by name', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const says = (text: string) => (error: unknown) => isFault(error, 'invalid') && error.fields?.upid === text
  await assert.rejects(tasks.status('UPID:x'), says('unable to parse worker upid'))
  await assert.rejects(
    tasks.status('UPID:../../etc:00000001:00000001:00000001:a:b:c@d:'),
    says('unable to parse worker upid'),
  )
  const unknown = 'UPID:testnode:00000001:00000001:00000001:hold:a:root@pam:'
  await assert.rejects(tasks.stop(unknown), says('no such task'))
  await assert.rejects(tasks.rawLog(unknown), says('no such task'))
})
