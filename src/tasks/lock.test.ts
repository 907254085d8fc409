import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { openMemoryStore } from '#store/memory.ts'
import { acquireLocks, heldLocks, releaseLocks } from './lock.ts'

test('locks are taken all at once, and released by who holds them', async () => {
  await using store = openMemoryStore()
  await acquireLocks(store, ['guest/100', 'guest/101', 'guest/100'], 'UPID:one')
  assert.deepEqual(await heldLocks(store), [
    { name: 'guest/100', upid: 'UPID:one' },
    { name: 'guest/101', upid: 'UPID:one' },
  ])
  await releaseLocks(store, (holder) => holder === 'UPID:other')
  assert.equal((await heldLocks(store)).length, 2)
  await releaseLocks(store, (holder) => holder === 'UPID:one')
  assert.deepEqual(await heldLocks(store), [])
})

test('who waits too long is told what is locked and by whom', async () => {
  await using store = openMemoryStore()
  await acquireLocks(store, ['guest/101'], 'UPID:one')
  const waiting: string[] = []
  const late = acquireLocks(store, ['guest/100', 'guest/101'], 'UPID:two', {
    timeoutMs: 120,
    onWait: ({ name, upid }) => waiting.push(`${name} ${upid}`),
  })
  await assert.rejects(late, (error) => {
    assert.ok(isFault(error, 'conflict'))
    assert.equal(error.message, "can't lock 'guest/101': held by task UPID:one")
    assert.match(error.remedy ?? '', /hako task stop 'UPID:one'/)
    return true
  })
  assert.deepEqual(waiting, ['guest/101 UPID:one'])
  assert.deepEqual(await heldLocks(store), [{ name: 'guest/101', upid: 'UPID:one' }])
})

test('who waits gets the lock once it is free, and stops waiting when asked', async () => {
  await using store = openMemoryStore()
  await acquireLocks(store, ['a'], 'UPID:one')
  const next = acquireLocks(store, ['a'], 'UPID:two')
  const stop = new AbortController()
  const stopped = acquireLocks(store, ['a'], 'UPID:three', { signal: stop.signal })
  stop.abort()
  await assert.rejects(stopped, (error) => isFault(error, 'aborted'))
  await releaseLocks(store, (holder) => holder === 'UPID:one')
  await next
  assert.deepEqual(await heldLocks(store), [{ name: 'a', upid: 'UPID:two' }])
})
