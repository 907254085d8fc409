import assert from 'node:assert/strict'
import { test } from 'node:test'
import { KiB } from '#base/bytes.ts'
import type { Extent } from '../backup/block-source.ts'
import { HoleMap } from './hole-map.ts'

async function* dataAt(...parts: readonly (readonly [number, number])[]): AsyncGenerator<Extent> {
  for (const [offset, length] of parts) yield { offset, length, isZero: false }
}

test('any place tells what is there, and how far', async () => {
  const map = await HoleMap.of(dataAt([100, 50], [150, 50], [300, 100]), 1_000)
  const zero = (length: number) => ({ length, isZero: true })
  const data = (length: number) => ({ length, isZero: false })
  assert.deepEqual(map.parts(0, 1_000), [zero(100), data(100), zero(100), data(100), zero(600)])
  assert.deepEqual(map.parts(120, 10), [data(80)])
  assert.deepEqual(map.parts(199, 2), [data(1), zero(100)])
  assert.deepEqual(map.parts(999, 50), [zero(1)])
  assert.deepEqual((await HoleMap.of(dataAt(), 10)).parts(0, 10), [zero(10)])
})

test('of a disk in too many pieces small holes are forgotten, large ones are not, and no data is ever called a hole', async () => {
  const step = 8 * KiB
  const pieces = Array.from({ length: 1_000 }, (_, at) => [at * step, 4 * KiB] as const)
  const far = 1_000 * step + 4_096 * KiB
  const map = await HoleMap.of(dataAt(...pieces, [far, 10]), far + 10, 100)
  const parts = map.parts(0, far + 10)
  assert.ok(parts.length <= 200, String(parts.length))
  assert.ok(parts.some(({ isZero, length }) => isZero && length >= 4_096 * KiB))
  for (const [offset] of pieces) assert.equal(map.parts(offset, 1)[0]?.isZero, false)
})
