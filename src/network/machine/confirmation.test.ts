import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { openMemoryStore } from '#store/memory.ts'
import { Confirmations } from './confirmation.ts'

const ann = { user: 'ann@pve', remoteAddress: '192.0.2.7' }

/** A store whose reads are counted, and a clock that stands still. */
function world() {
  const store = openMemoryStore()
  const clock = { atMs: 1_000_000, reads: 0 }
  const counted = { ...store, get: (key: string) => ((clock.reads += 1), store.get(key)) } as typeof store
  const now = () => clock.atMs
  const confirmations = new Confirmations({ store: counted, clock: { ...systemClock, now, monotonic: now } })
  return { clock, confirmations }
}

test('while a change may come the store is not asked with every request', async () => {
  const { clock, confirmations } = world()
  for (let request = 0; request < 100; request += 1) await confirmations.heard(ann)
  assert.equal(clock.reads, 1)
  clock.atMs += 250
  await confirmations.heard(ann)
  assert.equal(clock.reads, 2)
})

test('a single request is proof once the new network has been in force for its moment', async () => {
  for (const afterLookMs of [0, 1, 249]) {
    const { clock, confirmations } = world()
    await confirmations.heard(ann)
    clock.atMs += afterLookMs
    await confirmations.announce({ upid: 'UPID:x', user: ann.user, way: 'network' })
    await confirmations.begin(clock.atMs + 60_000)
    clock.atMs += 999
    await confirmations.heard(ann)
    assert.equal((await confirmations.current())?.confirmedBy, undefined)
    clock.atMs += 1
    await confirmations.heard(ann)
    assert.equal((await confirmations.current())?.confirmedBy, 'ann@pve from 192.0.2.7')
  }
})
