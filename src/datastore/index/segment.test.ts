/** Parts of the index: what they hold, and how they are written. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { filesBelow } from '../../../test/fixtures/datastore.ts'
import { openBelow } from '../../../test/fixtures/open-below.ts'
import { temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { segmentEntriesMaximum } from '../format.ts'
import { type SegmentEntry, writeSegment } from './segment.ts'

test('a part of the index whose entries cannot be read to their end leaves nothing that was begun', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore, keyring } = await temporary.reopen()
  const pack = 'ab'.repeat(32)
  const entries = function* (): Generator<SegmentEntry[]> {
    yield [{ id: randomBytes(16), pack, offset: 48, length: 1_000, plainBytes: 1_000, flags: 0 }]
    throw new Error('what they are read from is damaged')
  }
  const needs = { place: datastore.place, keyring, random: systemRandom }
  await assert.rejects(writeSegment(needs, 2, entries(), [pack]), /is damaged/)
  assert.deepEqual(await filesBelow(join(temporary.path, 'tmp')), [])
  assert.deepEqual(openBelow(join(temporary.path, 'tmp')), [])
})

test('a part of the index that would be too large is refused before it is begun, and not as if the disk were full', async () => {
  await using temporary = await temporaryDatastore()
  const { datastore, keyring } = await temporary.reopen()
  const needs = { place: datastore.place, keyring, random: systemRandom }
  const tooMany = writeSegment(needs, segmentEntriesMaximum + 1, [], [])
  await assert.rejects(tooMany, (fault) => isFault(fault, 'too-large'))
  assert.deepEqual(await filesBelow(join(temporary.path, 'tmp')), [])
})
