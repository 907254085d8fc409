/** The small parts of the engine, each by itself. */
import { isZero } from '#base/bytes.ts'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/fault.ts'
import { parseBackupId, printBackupId, tryParseBackupId } from './backup-id.ts'
import type { Extent } from './backup/block-source.ts'
import { defaultChunkBytes as chunkBytes, readBytes } from './format.ts'
import { dataRegions } from './backup/regions.ts'
import { seal, unseal } from './sealed.ts'
import { readAhead } from './window.ts'

test('a name of a backup prints as it was read, and nothing else is a name', () => {
  assert.equal(printBackupId(parseBackupId('vm/100/2026-11-20T10:00:00Z')), 'vm/100/2026-11-20T10:00:00Z')
  for (const text of [
    'vm/100/2026-02-31T10:00:00Z',
    'vm/../2026-11-20T10:00:00Z',
    'vm/100/2026-11-20T10:00:00Z/..',
    'vm//2026-11-20T10:00:00Z',
    'lxc/100/2026-11-20T10:00:00Z',
    'vm/100/2026-11-20',
  ]) {
    assert.throws(
      () => parseBackupId(text),
      (error) => isFault(error, 'invalid'),
      text,
    )
  }
  fc.assert(
    fc.property(fc.string(), (text) => {
      const id = tryParseBackupId(text)
      assert.ok(id === undefined || printBackupId(id) === text)
    }),
  )
})

test('sealed text notices every changed byte', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.nat(), fc.integer({ min: 1, max: 255 }), (value, place, change) => {
      const text = Buffer.from(seal(JSON.parse(JSON.stringify(value))))
      assert.deepEqual(unseal(text.toString(), 'it'), JSON.parse(JSON.stringify(value)))
      const at = place % text.length
      text[at] = (text[at] ?? 0) ^ change
      assert.throws(
        () => unseal(text.toString(), 'it'),
        (error) => isFault(error, 'damaged'),
      )
    }),
  )
})

test('regions cover all data in whole chunks, in order, and none is longer than a read', async () => {
  const run = fc.record({ length: fc.integer({ min: 1, max: 5 * readBytes }), isZero: fc.boolean() })
  await fc.assert(
    fc.asyncProperty(fc.array(run, { maxLength: 30 }), async (runs) => {
      let sizeBytes = 0
      const extents = runs.map(({ length, isZero: zero }): Extent => {
        const extent = { offset: sizeBytes, length, isZero: zero }
        sizeBytes += length
        return extent
      })
      const given = async function* () {
        yield* extents
      }
      const covered = new Set<number>()
      let end = 0
      for await (const { offset, length } of dataRegions(given(), sizeBytes, chunkBytes)) {
        assert.ok(offset >= end && offset % chunkBytes === 0 && length > 0 && length <= readBytes)
        end = offset + length
        assert.ok(end === sizeBytes || end % chunkBytes === 0)
        for (let at = offset; at < end; at += chunkBytes) covered.add(at / chunkBytes)
      }
      const wanted = new Set<number>()
      for (const { offset, length, isZero: zero } of extents) {
        const last = Math.ceil((offset + length) / chunkBytes)
        for (let at = Math.floor(offset / chunkBytes); !zero && at < last; at += 1) wanted.add(at)
      }
      assert.deepEqual(covered, wanted)
    }),
    { numRuns: 200 },
  )
})

test('zeros are told from nearly zeros', () => {
  assert.ok(isZero(Buffer.alloc(3 * chunkBytes + 5)))
  for (const at of [0, chunkBytes - 1, chunkBytes, 3 * chunkBytes + 4]) {
    const content = Buffer.alloc(3 * chunkBytes + 5)
    content[at] = 1
    assert.ok(!isZero(content))
  }
})

test('work goes on ahead in order and within its bound, and is awaited when the consumer stops', async () => {
  let [underWay, most, ended] = [0, 0, 0]
  const work = async (input: number) => {
    underWay += 1
    most = Math.max(most, underWay)
    await new Promise((resolve) => setImmediate(resolve))
    underWay -= 1
    ended += 1
    if (input === 50) throw new Error('fifty')
    return input
  }
  const seen: number[] = []
  for await (const output of readAhead(
    Array.from({ length: 40 }, (_, at) => at),
    4,
    work,
  )) {
    seen.push(output)
    if (output === 30) break
  }
  assert.deepEqual(
    seen,
    Array.from({ length: 31 }, (_, at) => at),
  )
  assert.ok(most <= 4)
  assert.equal(underWay, 0)
  ended = 0
  await assert.rejects(async () => {
    for await (const _ of readAhead([48, 49, 50, 51, 52], 3, work)) void _
  }, /fifty/)
  assert.equal(underWay, 0)
})
