/** The state of access is read from the store when something has changed, and never later than that. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MemoryWorld, openMemoryStore } from '#store/memory.ts'
import type { Store } from '#store/store.ts'
import { AccessState, keyOf } from './world.ts'

function counted(store: Store) {
  const asked = { times: 0 }
  const get: Store['get'] = (key) => {
    asked.times += 1
    return store.get(key)
  }
  return { asked, store: { ...store, mark: store.mark, get, list: store.list, transact: store.transact } as Store }
}

test('asked again and again, the store is asked once; after a change of another process, at once', async () => {
  const world = new MemoryWorld()
  const { asked, store } = counted(openMemoryStore(world))
  const [here, there] = [new AccessState(store), new AccessState(openMemoryStore(world))]
  await here.read()
  const before = asked.times
  for (let at = 0; at < 1000; at += 1) await here.read()
  assert.ok(asked.times - before <= 3, `${asked.times - before} times`)
  for (let at = 0; at < 20; at += 1) {
    const user = { enable: true, comment: String(at) }
    await there.change(() => [{ put: keyOf.user('ann@pve'), value: user }])
    assert.equal((await here.read()).users.get('ann@pve')?.comment, String(at))
  }
})

test('two that change at once both get their will', async () => {
  const world = new MemoryWorld()
  const states = [1, 2, 3, 4].map(() => new AccessState(openMemoryStore(world)))
  await Promise.all(
    states.map((state, at) => state.change(() => [{ put: keyOf.user(`user${at}@pve`), value: { enable: true } }])),
  )
  const { users } = await (states[0] as AccessState).read()
  assert.deepEqual([...users.keys()].filter((name) => name.startsWith('user')).toSorted(), [
    'user0@pve',
    'user1@pve',
    'user2@pve',
    'user3@pve',
  ])
})
