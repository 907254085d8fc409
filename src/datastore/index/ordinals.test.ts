/** Numbers of chunks, also where there are more of them than 31 bits can count. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { ChunkOrdinals, ChunkSet } from './ordinals.ts'
import type { Segment } from './segment.ts'

test('a chunk whose number takes all 32 bits is in a set once it was added, and no other one is', () => {
  const set = new ChunkSet({ count: 2 ** 31 + 16 })
  for (const ordinal of [5, 2 ** 31 - 1, 2 ** 31, 2 ** 31 + 13]) {
    assert.equal(set.has(ordinal), false, `${ordinal}`)
    assert.equal(set.add(ordinal), true, `${ordinal}`)
    assert.equal(set.add(ordinal), false, `${ordinal}`)
    assert.equal(set.has(ordinal), true, `${ordinal}`)
    assert.equal(set.has(ordinal + 1), false, `${ordinal}`)
  }
  assert.equal(set.size, 4)
})

test('more chunks than have numbers are refused before anything is read', async () => {
  const half = { count: 2 ** 31 } as Segment
  await assert.rejects(ChunkOrdinals.of([half, half]), (fault) => isFault(fault, 'too-large'))
})
