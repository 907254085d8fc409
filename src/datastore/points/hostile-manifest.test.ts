/** A manifest somebody with the keys has made to do harm. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { KiB, MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { disk } from '../../../test/fixtures/datastore.ts'
import { backUp, point, temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { ChunkReader } from '../chunks/chunk-reader.ts'
import { ChunkWriter } from '../chunks/chunk-writer.ts'
import { kinds, metadataMaximumBytes } from '../format.ts'
import { manifestName, printManifest } from './manifest.ts'
import { verifyBackup } from '../verify/verify.ts'

const chunk = 128 * KiB

test('a manifest that lies about sizes and counts is damaged, in bounded memory', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  await backUp(open, point(0), { scsi0: disk('rr') })
  const body = await open.body(point(0))
  const [honest] = body.disks
  assert.ok(honest)
  const before = process.memoryUsage.rss()
  const lies = [
    { sizeBytes: 2 ** 46 },
    { sizeBytes: honest.sizeBytes + chunk },
    { sizeBytes: 0 },
    { root: Array.from({ length: 10_000 }, () => honest.root[0] ?? '') },
    { root: [] },
    { sizeBytes: -1 },
    { chunks: 1e300 },
    { name: '../../etc/passwd' },
  ]
  for (const [number, lie] of lies.entries()) {
    const name = point(number + 1)
    const head = { point: name, pointInTime: '2026-11-20T10:00:00.000Z', finished: name.time }
    const text = printManifest(open.keyring, systemRandom, head, { ...body, disks: [{ ...honest, ...lie }] })
    await open.datastore.place.put(manifestName(name), Buffer.from(text))
    const isDamage = (fault: unknown) => isFault(fault, 'damaged')
    await assert.rejects(verifyBackup(open, name), isDamage, JSON.stringify(lie).slice(0, 80))
    const map = async () => {
      await using reader = await open.open(name)
      await reader.mapOf(honest.name)
    }
    await assert.rejects(map(), isDamage)
    for (const part of [text.length >> 1, text.length - 20]) {
      await open.datastore.place.replace(manifestName(name), Buffer.from(text.slice(0, part)))
      await assert.rejects(open.body(name), isDamage)
    }
    await open.datastore.remove(name)
  }
  assert.ok(process.memoryUsage.rss() - before < 200 * MiB)
  await verifyBackup(open, point(0))
})

test('what a manifest names over and over is read no further than what it says can be there', async ({ mock }) => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  const { keyring, index, datastore } = open
  const { place } = datastore
  const large = Buffer.alloc(metadataMaximumBytes)
  await using writer = new ChunkWriter({ place, keyring, index, random: systemRandom, level: 1 })
  const ids = { content: keyring.idOf(kinds.content, large), map: keyring.idOf(kinds.map, large) }
  await writer.put(ids.content, kinds.content, large)
  await writer.put(ids.map, kinds.map, large)
  await writer.flush()
  const manyTimes = (id: Buffer) => Array.from({ length: 600 }, () => id.toString('hex'))
  const counts = { chunks: 1, dataBytes: 1, newChunks: 0, newStoredBytes: 0 }
  const digest = '0'.repeat(64)
  const disk = { name: 'scsi0', sizeBytes: chunk, digest, root: manyTimes(ids.map), ...counts }
  const file = { name: 'x', sizeBytes: chunk, chunks: manyTimes(ids.content) }
  const head = { point: point(1), pointInTime: '2026-11-20T10:00:00.000Z', finished: point(1).time }
  const text = printManifest(keyring, systemRandom, head, { disks: [disk], trees: [], files: [file], facts: {} })
  await place.put(manifestName(point(1)), Buffer.from(text))
  const reads = mock.method(ChunkReader.prototype, 'readRun')
  const isDamage = (fault: unknown) => isFault(fault, 'damaged')
  await using reader = await open.open(point(1))
  await assert.rejects(reader.mapOf('scsi0'), isDamage)
  assert.equal(reads.mock.callCount(), 0)
  await assert.rejects(reader.file('x'), isDamage)
  assert.equal(reads.mock.callCount(), 1)
  await assert.rejects(verifyBackup(open, point(1)), isDamage)
  assert.equal(reads.mock.callCount(), 2)
})
