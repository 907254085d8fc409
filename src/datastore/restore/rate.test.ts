/** A limit on how fast is kept, by who reads a disk into a backup and by who writes one out of it. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { MiB } from '#base/bytes.ts'
import { memorySource, memoryTarget } from '../../../test/fixtures/datastore.ts'
import { point, temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { restoreDisk } from './restore-disk.ts'

const rateBytesPerSecond = 16 * MiB

async function took(work: () => Promise<unknown>): Promise<number> {
  const startedMs = systemClock.monotonic()
  await work()
  return systemClock.monotonic() - startedMs
}

test('a disk is read, and written, no faster than it may be', async () => {
  await using store = await temporaryDatastore()
  const open = await store.reopen()
  // Of no use to who compresses, so that nothing else could make it slow enough by chance, or fast enough.
  const content = randomBytes(16 * MiB)
  const source = memorySource(content)
  await using writer = await open.begin(point(1))
  // What is under way when the limit is reached is read at once: a few chunks.
  assert.ok((await took(() => writer.addDisk('scsi0', source, { rateBytesPerSecond, readsAhead: 1 }))) > 700)
  await writer.commit({ facts: {} })
  await using reader = await open.open(point(1))
  const target = memoryTarget(content.length)
  assert.ok((await took(() => restoreDisk(reader, 'scsi0', target, { rateBytesPerSecond }))) > 700)
  assert.ok(target.content.equals(content))
})
