import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/fault.ts'
import { MemoryWorld, openMemoryStore } from '#store/memory.ts'
import { PoolService } from './service.ts'

function place() {
  const store = openMemoryStore(new MemoryWorld())
  return { store, pools: new PoolService({ store, rightsMark: 'mark' }) }
}

test('a guest is in one pool at most, a storage in as many as wanted', async () => {
  const { pools } = place()
  await pools.create('a', 'first')
  await pools.create('b')
  await pools.update('a', { vms: [101, 100], storages: ['fast'] })
  await pools.update('b', { storages: ['fast'] })
  await assert.rejects(
    pools.update('b', { vms: [100] }),
    /VM 100 belongs already to pool 'a' and 'allow-move' is not set/,
  )
  await pools.update('b', { vms: [100], mayMove: true })
  assert.deepEqual(await pools.get('a'), { comment: 'first', vms: [101], storages: ['fast'] })
  assert.equal(await pools.poolOf(100), 'b')
  const poolsOf = await pools.poolsOf()
  assert.deepEqual([poolsOf('/vms/100'), poolsOf('/storage/fast'), poolsOf('/vms/7')], [['b'], ['a', 'b'], []])
})

test('what is not there is said in words clients know', async () => {
  const { pools } = place()
  await pools.create('a')
  await assert.rejects(pools.get('b'), /^Fault: pool 'b' does not exist$/)
  await assert.rejects(pools.create('a'), /^Fault: pool 'a' already exists$/)
  await assert.rejects(pools.create('b/c'), /^Fault: parent 'b' of pool 'b\/c' does not exist$/)
  await assert.rejects(pools.update('a', { vms: [100], isRemoval: true }), /VM 100 is not a pool member/)
  await assert.rejects(pools.update('a', { storages: ['x'], isRemoval: true }), /Storage 'x' is not a pool member/)
})

test('only an empty pool is deleted', async () => {
  const { pools } = place()
  await pools.create('a')
  await pools.create('a/b')
  await assert.rejects(pools.delete('a'), /pool 'a' is not empty \(contains pool 'a\/b'\)/)
  await pools.delete('a/b')
  await pools.put(100, 'a')
  await assert.rejects(pools.delete('a'), /is not empty \(contains VMs\)/)
  assert.equal(await pools.takeOut(100), 'a')
  assert.equal(await pools.takeOut(100), undefined)
  await pools.delete('a')
  assert.equal((await pools.all()).size, 0)
})

test('every change of membership is marked for those who judge', async () => {
  const { store, pools } = place()
  await pools.create('a')
  const before = (await store.get('mark'))?.revision ?? 0
  await pools.put(100, 'a')
  const after = (await store.get('mark'))?.revision ?? 0
  assert.ok(after > before)
  await pools.put(100, 'a')
  assert.equal((await store.get('mark'))?.revision, after)
})

test('whatever is asked for, in any order and at the same time, no guest is in two pools', async () => {
  const name = fc.constantFrom('a', 'b', 'c')
  const vmid = fc.integer({ min: 100, max: 103 })
  const act = fc.oneof(
    fc.record({ kind: fc.constant('put' as const), name, vmid }),
    fc.record({ kind: fc.constant('add' as const), name, vmid, mayMove: fc.boolean() }),
    fc.record({ kind: fc.constant('out' as const), vmid }),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(act, { maxLength: 20 }), async (acts) => {
      const { pools } = place()
      for (const one of ['a', 'b', 'c']) await pools.create(one)
      const done = acts.map((one) => {
        if (one.kind === 'put') return pools.put(one.vmid, one.name)
        if (one.kind === 'out') return pools.takeOut(one.vmid)
        return pools.update(one.name, { vms: [one.vmid], mayMove: one.mayMove })
      })
      const failures = (await Promise.allSettled(done)).filter((end) => end.status === 'rejected')
      for (const { reason } of failures) assert.ok(isFault(reason, 'conflict'), String(reason))
      const members = [...(await pools.all()).values()].flatMap(({ vms }) => vms)
      assert.equal(new Set(members).size, members.length)
    }),
    { numRuns: 50 },
  )
})
