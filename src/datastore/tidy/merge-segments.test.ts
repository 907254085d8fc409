/** An index of more chunks than one part of it can name. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { disk, memorySource } from '../../../test/fixtures/datastore.ts'
import {
  backUp,
  point,
  restored,
  temporaryDatastore,
  type TemporaryDatastore,
} from '../../../test/fixtures/sealed-datastore.ts'
import { collectGarbage } from '../collect/garbage.ts'
import type { RestorePoint } from '../point.ts'
import { verifyDatastore } from '../verify/verify-datastore.ts'
import { verifyIndex } from '../verify/verify.ts'
import { mergeSegments } from './merge-segments.ts'

/** As if no part could have more entries. */
const most = 60

async function partsOf({ reopen }: TemporaryDatastore) {
  const { segments } = (await reopen()).index
  for (const { count } of segments) assert.ok(count <= most, `a part has ${count} entries`)
  return new Map(segments.map(({ name, count }) => [name, count]))
}

async function areWhole(temporary: TemporaryDatastore, backups: ReadonlyMap<RestorePoint, Buffer>): Promise<void> {
  assert.deepEqual(await verifyIndex(await temporary.reopen()), [])
  await verifyDatastore(await temporary.reopen())
  for (const [one, content] of backups) {
    assert.ok((await restored(await temporary.reopen(), one, 'scsi0')).equals(content), `${one.time}`)
    // A backup of the same finds all of it.
    await using writer = await (await temporary.reopen()).begin({ ...one, time: one.time + 1_000 })
    const { newChunks } = await writer.addDisk('scsi0', memorySource(content))
    assert.equal(newChunks, 0)
  }
}

test('garbage is collected where the index has more chunks than one part of it can name', async () => {
  await using temporary = await temporaryDatastore()
  const living = disk('r'.repeat(20))
  await backUp(await temporary.reopen(), point(0), { scsi0: Buffer.concat([living, disk('r'.repeat(30))]) })
  const backups = new Map([[point(1), living]])
  for (let time = 2; time < 5; time += 1) backups.set(point(time, '101'), disk('r'.repeat(30)))
  for (const [one, content] of backups) await backUp(await temporary.reopen(), one, { scsi0: content })
  const open = await temporary.reopen()
  await open.datastore.remove(point(0))

  const { removedChunks, rewrittenPacks } = await collectGarbage(open, { segmentEntries: most })
  assert.ok(removedChunks >= 30 && rewrittenPacks === 1, `${removedChunks} chunks and ${rewrittenPacks} packs`)
  const parts = await partsOf(temporary)
  assert.ok(parts.size > 1, 'more parts than one')
  await areWhole(temporary, backups)

  const again = await collectGarbage(await temporary.reopen(), { segmentEntries: most })
  assert.deepEqual([again.removedChunks, again.chunks], [0, again.liveChunks])
  assert.deepEqual(await partsOf(temporary), parts, 'nothing was to be done, and nothing was written')
})

test('parts of the index become several where one would be too large, and those are left as they are', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  // Else whoever ends a backup merges.
  await using lease = await open.datastore.tryTidy()
  assert.ok(lease)
  const backups = new Map<RestorePoint, Buffer>()
  const add = async (count: number) => {
    for (let more = 0; more < count; more += 1) {
      const one = point(backups.size)
      backups.set(one, disk('r'.repeat(20)))
      await backUp(await temporary.reopen(), one, { scsi0: backups.get(one) ?? Buffer.alloc(0) })
    }
  }
  await add(9)
  await mergeSegments(open, lease, most)
  const parts = await partsOf(temporary)
  assert.ok(parts.size > 1 && parts.size < 8, `9 parts became ${parts.size}`)
  await areWhole(temporary, backups)
  await mergeSegments(open, lease, most)
  assert.deepEqual(await partsOf(temporary), parts, 'nothing was to be done, and nothing was written')

  await add(8)
  await mergeSegments(open, lease, most)
  const more = await partsOf(temporary)
  const kept = [...parts].filter(([name]) => more.has(name))
  assert.ok(kept.length >= parts.size - 1, 'what was as large as it may be stays as it is')
  assert.ok(more.size < parts.size + 8, `8 more became ${more.size - kept.length}`)
  await areWhole(temporary, backups)
})
