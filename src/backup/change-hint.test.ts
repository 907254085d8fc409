import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Change, changeHint } from './change-hint.ts'

const change = (newShare: number, bytesPerNewChunk: number): Change => ({
  newShare,
  bytesPerNewChunk,
  newChunks: Math.round(newShare * 10_000),
})
/** The first one holds everything anew. */
const usual = [
  change(1, 50_000),
  ...Array.from({ length: 6 }, (_, day) => change(0.01 + day / 1000, 45_000 + day * 500)),
]

test('much that is new and cannot be compressed is told', () => {
  const hint = changeHint(change(0.6, 131_000), usual)
  assert.ok(hint)
  assert.equal(hint.newShare, 0.6)
  assert.ok(hint.usualShare > 0.01 && hint.usualShare < 0.02)
})

test('much that is new and like what was there, or little that cannot be compressed, is everyday', () => {
  assert.equal(changeHint(change(0.6, 50_000), usual), undefined)
  assert.equal(changeHint(change(0.03, 131_000), usual), undefined)
})

test('a guest whose data never could be compressed, or that always changes wholly, is not suspected for it', () => {
  const films = [change(1, 131_000), ...Array.from({ length: 6 }, () => change(0.02, 131_000))]
  assert.equal(changeHint(change(0.6, 131_000), films), undefined)
  const scratch = [change(1, 60_000), ...Array.from({ length: 6 }, () => change(0.5, 60_000))]
  assert.equal(changeHint(change(0.9, 131_000), scratch), undefined)
})

test('nothing is said of a guest nobody knows yet', () => {
  assert.equal(changeHint(change(1, 131_000), []), undefined)
  assert.equal(changeHint(change(1, 131_000), usual.slice(0, 4)), undefined)
})

test('a backup like one of those before it is never suspected', () => {
  const aChange = fc.record({
    newShare: fc.double({ min: 0, max: 1, noNaN: true }),
    bytesPerNewChunk: fc.integer({ min: 0, max: 131_100 }),
    newChunks: fc.nat(100_000),
  })
  fc.assert(
    fc.property(aChange, fc.integer({ min: 4, max: 40 }), (one, count) => {
      assert.equal(
        changeHint(
          one,
          Array.from({ length: count + 1 }, () => one),
        ),
        undefined,
      )
    }),
  )
})
