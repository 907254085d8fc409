import assert from 'node:assert/strict'
import { test } from 'node:test'
import { taskPlace } from '../../test/fixtures/tasks/place.ts'
import { parseUpid } from './upid.ts'

const wanted = { type: 'vncproxy', id: '100', user: 'joe@pve!ci' }

test('what the daemon attends to is a task like any other, without a process of its own', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const attended = await tasks.attend(wanted)
  const { pid, type, id, user } = parseUpid(attended.upid)
  assert.deepEqual({ pid, type, id, user }, { pid: process.pid, ...wanted })
  attended.log('the screen of VM 100')
  assert.equal((await tasks.status(attended.upid)).status, 'running')
  assert.deepEqual(
    tasks.active().map((item) => item.upid),
    [attended.upid],
  )
  await attended.end('OK')
  await attended.end('too late')
  attended.log('too late')
  assert.equal((await tasks.status(attended.upid)).exitstatus, 'OK')
  assert.equal(await tasks.rawLog(attended.upid), 'the screen of VM 100\nTASK OK\n')
  await attended.ended
  assert.deepEqual(tasks.active(), [])
})

test('stopping it asks, and signals no process', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const { upid, signal, end } = await tasks.attend(wanted)
  await tasks.stop(upid)
  assert.ok(signal.aborted)
  assert.equal((await tasks.status(upid)).status, 'running')
  await end('stopped')
  await tasks.stop(upid)
  assert.equal((await tasks.status(upid)).exitstatus, 'stopped')
})

test('two alike in one second have names of their own', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const [first, second] = await Promise.all([tasks.attend(wanted), tasks.attend(wanted)])
  assert.notEqual(first.upid, second.upid)
  await first.end('OK')
  const third = await tasks.attend(wanted)
  assert.notEqual(third.upid, first.upid)
  assert.equal((await tasks.status(first.upid)).exitstatus, 'OK')
  for (const { end } of [second, third]) await end('OK')
})

test('many of them take no slot of those that work', async () => {
  await using place = await taskPlace()
  const tasks = place.service({ runningAtOnce: 1 })
  const open = await Promise.all(['1', '2', '3'].map((id) => tasks.attend({ ...wanted, id })))
  const upid = await tasks.start({ operation: 'mkalbum', params: { root: place.root, name: 'a' }, user: 'joe@pve' })
  assert.equal((await tasks.wait(upid, { timeoutMs: 60_000 })).exitstatus, 'OK')
  for (const { end } of open) await end('OK')
})
