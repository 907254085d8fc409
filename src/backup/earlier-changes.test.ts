import assert from 'node:assert/strict'
import { test } from 'node:test'
import { KiB } from '#base/bytes.ts'
import { carriedOn, type DatedFigures, figuresFrom } from './earlier-changes.ts'

const chunkBytes = 128 * KiB
const disk = { chunks: 100, newChunks: 7, newStoredBytes: 7_000 } as never
const figures = (time: number): DatedFigures => ({ time, chunks: 90, newChunks: 1, newStoredBytes: 500 })
const backup = (time: number, changes?: unknown) => ({
  point: { namespace: '', type: 'vm' as const, id: '100', time },
  disks: [disk],
  trees: [],
  facts: changes === undefined ? {} : { changes: changes as never },
})
const own = (time: number) => ({ time, chunks: 100, newChunks: 7, newStoredBytes: 7_000 })

test('what is kept says itself how it changed, and tells of what is removed', () => {
  const all = figuresFrom([backup(3, [figures(1)]), backup(5, [figures(1), figures(3), figures(4)])], chunkBytes)
  assert.deepEqual(all, [figures(1), own(3), figures(4), own(5)])
  // Of before anything was carried.
  assert.deepEqual(figuresFrom([backup(1), backup(2)], chunkBytes), [own(1), own(2)])
})

test('no more is carried on than a few, and what is none is not', () => {
  const many = Array.from({ length: 20 }, (_, time) => figures(time))
  assert.deepEqual(carriedOn(many), many.slice(-8))
  for (const wrong of [
    'x',
    7,
    null,
    [null, 'x', { time: 1 }, { ...figures(1), chunks: '9' }, { ...figures(1), chunks: -1 }],
  ])
    assert.deepEqual(figuresFrom([backup(30, wrong)], chunkBytes), [own(30)], JSON.stringify(wrong))
})
