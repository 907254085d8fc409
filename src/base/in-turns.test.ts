import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inTurns } from './in-turns.ts'

test('results stand in the order of the items, however long each took', async () => {
  const later = [3, 1, 2].map(() => Promise.withResolvers<void>())
  const made = inTurns([0, 1, 2], 3, async (at) => {
    await later[at]?.promise
    return `made ${at}`
  })
  for (const { resolve } of later.toReversed()) resolve()
  assert.deepEqual(await made, ['made 0', 'made 1', 'made 2'])
  assert.deepEqual(await inTurns([], 3, () => 1), [])
})

test('no more are under way than may be', async () => {
  let [now, most] = [0, 0]
  await inTurns(Array.from({ length: 20 }), 4, async () => {
    most = Math.max(most, (now += 1))
    await new Promise(setImmediate)
    now -= 1
  })
  assert.equal(most, 4)
})

test('after a failure nothing begins any more, and the failure is what the caller hears of', async () => {
  const begun: number[] = []
  const act = async (item: number) => {
    begun.push(item)
    await new Promise(setImmediate)
    if (item === 1) throw new Error('the second is broken')
  }
  await assert.rejects(inTurns([0, 1, 2, 3, 4, 5], 2, act), /the second is broken/)
  await new Promise(setImmediate)
  await new Promise(setImmediate)
  assert.ok(begun.length <= 3, `${begun.length} were begun`)
})
