import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Change, changeHint } from './change-hint.ts'

const change = (newShare: number, bytesPerNewChunk: number, chunks = 10_000): Change => ({
  newShare,
  bytesPerNewChunk,
  newChunks: Math.round(newShare * chunks),
  chunks,
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
  assert.equal(changeHint(change(0.15, 131_000), films), undefined)
  // As many again as there were: what was there is as it was.
  assert.equal(changeHint(change(0.5, 131_000, 20_000), films), undefined)
  const scratch = [change(1, 60_000), ...Array.from({ length: 6 }, () => change(0.5, 60_000))]
  assert.equal(changeHint(change(0.9, 131_000), scratch), undefined)
})

test('nothing is said of a guest nobody knows yet', () => {
  assert.equal(changeHint(change(1, 131_000), []), undefined)
  assert.equal(changeHint(change(1, 131_000), usual.slice(0, 3)), undefined)
})

test('three backups suffice, and the oldest of them counts unless it is a first one', () => {
  for (const kept of [3, 4, 5]) assert.ok(changeHint(change(1, 131_000), usual.slice(-kept)), `of ${kept}`)
  assert.ok(changeHint(change(1, 131_000), usual.slice(0, 4)))
  assert.equal(changeHint(change(1, 131_000), usual.slice(-2)), undefined)
})

test('most of what never could be compressed replaced by as much noise is told', () => {
  const media = Array.from({ length: 30 }, () => change(0.02, 110_000))
  assert.ok(changeHint(change(1, 131_100), media))
  assert.ok(changeHint(change(0.3, 131_100), media))
  assert.equal(changeHint(change(0.19, 131_100), media), undefined)
})

test('a small part of a large guest replaced by noise is told, and as much that is added or shrinks is not', () => {
  const large = Array.from({ length: 30 }, () => change(0.002, 50_000))
  assert.ok(changeHint(change(0.08, 131_100), large))
  assert.equal(changeHint(change(0.08, 131_100, 10_870), large), undefined)
  assert.equal(changeHint(change(0.08, 70_000), large), undefined)
  assert.equal(changeHint(change(0.03, 131_100), large), undefined)
})

test('less than a tenth that is only added is never suspected, nor anything that can still be compressed by half', () => {
  const before = fc.record({
    share: fc.double({ min: 0.01, max: 0.5, noNaN: true }),
    bytes: fc.integer({ min: 40_000, max: 131_100 }),
  })
  const pasts = fc.array(before, { minLength: 3, maxLength: 40 })
  const share = fc.double({ min: 0, max: 0.0999, noNaN: true })
  fc.assert(
    fc.property(pasts, share, fc.integer({ min: 0, max: 131_100 }), (past, added, bytes) => {
      const history = past.map((one) => change(one.share, one.bytes))
      const chunks = Math.ceil(10_000 / (1 - added))
      assert.equal(changeHint(change(added, bytes, chunks), history), undefined)
      assert.equal(changeHint(change(1, 50_000), history), undefined)
    }),
  )
})

test('a backup like one of those before it is never suspected', () => {
  const aChange = fc.record({
    newShare: fc.double({ min: 0, max: 1, noNaN: true }),
    bytesPerNewChunk: fc.integer({ min: 0, max: 131_100 }),
    newChunks: fc.nat(100_000),
    chunks: fc.nat(100_000),
  })
  fc.assert(
    fc.property(aChange, fc.integer({ min: 3, max: 40 }), (one, count) => {
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
