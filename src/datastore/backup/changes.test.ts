import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import { open as openFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { KiB, MiB } from '#base/bytes.ts'
import { disk, memorySource } from '../../../test/fixtures/datastore.ts'
import { point, restored, temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { diskBefore } from './add-whole.ts'
import type { AddDiskOptions } from './writer.ts'
import type { BlockSource, Extent } from './block-source.ts'
import { type ChangeRegion, changeRegions, Sample } from './changes.ts'
import type { OpenDatastore } from '../datastore.ts'
import { collectGarbage } from '../collect/garbage.ts'
import { packName } from '../packs/pack.ts'
import { printPoint, type RestorePoint } from '../point.ts'
import { verifyBackup } from '../verify/verify.ts'

const chunk = 128 * KiB
const record = (time: number) => `record ${time}`

/** A disk in memory that counts what is read of it. */
function counting(content: Buffer, extents?: readonly Extent[]): BlockSource & { readonly readBytes: () => number } {
  const source = memorySource(content, extents)
  let total = 0
  return {
    ...source,
    readBytes: () => total,
    read: async (offset, into) => {
      total += into.length
      await source.read(offset, into)
    },
  }
}

async function backUp(open: OpenDatastore, name: RestorePoint, source: BlockSource, options: AddDiskOptions = {}) {
  await using writer = await open.begin(name)
  const made = await writer.addDisk('scsi0', source, { record: record(name.time), ...options })
  await writer.commit()
  return made
}

const since = (name: RestorePoint) => ({ point: name, disk: 'scsi0', record: record(name.time) })

/** Extents of a disk of which only these parts have changed. */
function changedParts(sizeBytes: number, parts: readonly { offset: number; length: number }[]): Extent[] {
  const bounds = new Set([0, sizeBytes, ...parts.flatMap(({ offset, length }) => [offset, offset + length])])
  const sorted = [...bounds].filter((at) => at <= sizeBytes).toSorted((a, b) => a - b)
  return sorted.slice(0, -1).map((offset, number) => {
    const isChanged = parts.some((part) => offset >= part.offset && offset < part.offset + part.length)
    return { offset, length: (sorted[number + 1] ?? sizeBytes) - offset, isZero: false, isUnchanged: !isChanged }
  })
}

test('after random writes, backups of what was written alone hold what a backup of everything holds', async () => {
  await using temporary = await temporaryDatastore({ chunkBytes: 64 * KiB })
  let time = 0
  const write = fc.record({
    offset: fc.nat(3 * MiB),
    length: fc.integer({ min: 1, max: 300 * KiB }),
    what: fc.constantFrom('random', 'zeros', 'told-zeros', 'same'),
    grain: fc.constantFrom(1, 4 * KiB, 64 * KiB),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(fc.array(write, { maxLength: 5 }), { minLength: 1, maxLength: 4 }), async (rounds) => {
      const content = Buffer.concat([disk('rt.r..tr.r.r'), Buffer.alloc(1 * MiB), randomBytes(1 * MiB + 77)])
      time += 1
      let last = point(time)
      await backUp(await temporary.reopen(), last, memorySource(content))
      for (const writes of rounds) {
        const parts = writes.map(({ offset, length, what, grain }) => {
          const end = Math.min(content.length, offset + length)
          if (what === 'random') randomBytes(end - offset).copy(content, offset)
          if (what === 'zeros' || what === 'told-zeros') content.fill(0, offset, end)
          const from = offset - (offset % grain)
          return { offset: from, length: Math.min(content.length, Math.ceil(end / grain) * grain) - from }
        })
        const extents = changedParts(content.length, parts).map((extent) => ({
          ...extent,
          isZero: content.subarray(extent.offset, extent.offset + extent.length).every((byte) => byte === 0),
        }))
        time += 1
        const name = point(time)
        const made = await backUp(await temporary.reopen(), name, memorySource(content, extents), {
          since: since(last),
        })
        time += 1
        const whole = await backUp(await temporary.reopen(), point(time), memorySource(content))
        assert.equal(made.reading?.how, 'changes')
        assert.equal(made.digest, whole.digest)
        assert.deepEqual(made.prints, whole.prints)
        assert.deepEqual([made.chunks, made.dataBytes], [whole.chunks, whole.dataBytes])
        assert.ok((await restored(await temporary.reopen(), name, 'scsi0')).equals(content))
        last = name
      }
    }),
    { numRuns: 6 },
  )
})

test('only what changed is read, in whole chunks, and a share of the rest', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rrrrrrrrrrrrrrrr')
  const open = await temporary.reopen()
  await backUp(open, point(0), memorySource(content))
  randomBytes(10).copy(content, 3 * chunk + 500)
  const extents = changedParts(content.length, [{ offset: 3 * chunk + 4 * KiB, length: 4 * KiB }])
  const none = counting(content, extents)
  const made = await backUp(open, point(1), none, { since: since(point(0)), auditedShare: 0 })
  assert.deepEqual([none.readBytes(), made.newChunks], [chunk, 1])
  assert.deepEqual(made.reading, {
    how: 'changes',
    since: printPoint(point(0)),
    changedBytes: chunk,
    auditedChunks: 0,
  })
  const all = counting(content, changedParts(content.length, []))
  const audited = await backUp(open, point(2), all, { since: since(point(1)), auditedShare: 1 })
  assert.deepEqual([all.readBytes(), audited.reading?.auditedChunks, audited.newChunks], [16 * chunk, 16, 0])
  await verifyBackup(open, point(2))
})

test('a record that lies is found out by looking at unchanged chunks, and then all of the disk is read', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rr.rrrrr')
  const open = await temporary.reopen()
  await backUp(open, point(0), memorySource(content))
  for (const [time, position] of [
    [1, 5],
    [2, 2],
  ] as const) {
    randomBytes(10).copy(content, position * chunk)
    const lying = memorySource(content, changedParts(content.length, [{ offset: 0, length: 10 }]))
    const made = await backUp(open, point(time), lying, { since: since(point(time - 1)), auditedShare: 1 })
    assert.deepEqual([made.reading?.how, made.reading?.hits], ['scan', 1])
    assert.match(made.reading?.reason ?? '', new RegExp(`what is at ${position * chunk} is not`))
    assert.ok((await restored(await temporary.reopen(), point(time), 'scsi0')).equals(content))
  }
  // Zeros that are told, not read, are all held against the map, not by chance.
  content.fill(0, 0, chunk)
  const parts = changedParts(content.length, [{ offset: chunk, length: 1 }])
  const told = memorySource(
    content,
    parts.map((extent) => ({ ...extent, isZero: extent.offset < chunk })),
  )
  const made = await backUp(open, point(3), told, { since: since(point(2)), auditedShare: 1e-9 })
  assert.equal(made.reading?.hits, 1)
  assert.match(made.reading.reason ?? '', /what is at 0 is not/)
  assert.ok((await restored(await temporary.reopen(), point(3), 'scsi0')).equals(content))
})

test('a record that lies about much is found out by looking at one chunk in a hundred', async () => {
  await using temporary = await temporaryDatastore({ chunkBytes: 64 * KiB })
  const content = randomBytes(64 * MiB)
  const open = await temporary.reopen()
  await backUp(open, point(0), memorySource(content))
  // All of 1,024 chunks changed: that none of them is looked at has a chance of one in 30,000.
  randomBytes(content.length).copy(content)
  const lying = memorySource(content, changedParts(content.length, []))
  const made = await backUp(open, point(1), lying, { since: since(point(0)) })
  assert.equal(made.reading?.hits, 1)
})

test('a backup that cannot be built upon is not: all of the disk is read, and why is told', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rrrr')
  const open = await temporary.reopen()
  await backUp(open, point(0), memorySource(content))
  const unchanged = (bytes: Buffer) => memorySource(bytes, changedParts(bytes.length, []))
  let time = 0
  const refused = async (why: RegExp, options: AddDiskOptions, bytes = content) => {
    time += 1
    const made = await backUp(open, point(time), unchanged(bytes), { auditedShare: 0, ...options })
    assert.equal(made.reading?.how, 'scan')
    assert.match(made.reading.reason ?? '', why)
    assert.ok((await restored(await temporary.reopen(), point(time), 'scsi0')).equals(bytes))
  }
  const good = since(point(0))
  await refused(/does not exist/, { since: { ...good, point: point(99) } })
  await refused(/has no disk virtio0/, { since: { ...good, disk: 'virtio0' } })
  await refused(/is not that of backup/, { since: { ...good, record: 'another' } })
  await refused(/another size/, { since: good }, Buffer.concat([content, disk('r')]))
  await open.datastore.mark(point(0), { damage: 'a pack is damaged' })
  await refused(/is damaged/, { since: good })
  await open.datastore.place.put(`suspects/${'ab'.repeat(32)}`, Buffer.alloc(0))
  await refused(/damage was seen/, { since: since(point(1)) })
})

test('where what the earlier backup consists of cannot be read, all of the disk is', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rrrr')
  const open = await temporary.reopen()
  const first = await backUp(open, point(0), memorySource(content))
  const { map } = await diskBefore(await temporary.reopen(), first)
  const piece = await open.index.find(map.pieceId(0))
  assert.ok(piece)
  {
    await using file = await openFile(join(temporary.path, packName(piece.pack)), 'r+')
    await file.write(Buffer.from([1, 2, 3]), 0, 3, piece.offset)
  }
  const parts = [{ offset: 0, length: 1 }]
  content.set(randomBytes(10))
  const source = memorySource(content, changedParts(content.length, parts))
  const made = await backUp(await temporary.reopen(), point(1), source, { since: since(point(0)), auditedShare: 0 })
  assert.match(made.reading?.reason ?? '', /is damaged/)
  assert.ok((await restored(await temporary.reopen(), point(1), 'scsi0')).equals(content))
})

test('chunks somebody is about to remove are not taken over', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rrrr')
  const open = await temporary.reopen()
  const source = () => memorySource(content, changedParts(content.length, []))
  await backUp(open, point(0), source())
  const held = await temporary.reopen()
  // A backup in progress keeps the collector from removing what it condemns.
  await using slow = await held.begin(point(50, '101'))
  await open.datastore.remove(point(0))
  await collectGarbage(await temporary.reopen())
  const again = await temporary.reopen()
  await backUp(again, point(1), source())
  const made = await backUp(await temporary.reopen(), point(2), source(), { since: since(point(1)), auditedShare: 0 })
  assert.match(made.reading?.reason ?? '', /have been condemned/)
  await slow.abort()
  await collectGarbage(await temporary.reopen())
  await collectGarbage(await temporary.reopen())
  assert.ok((await restored(await temporary.reopen(), point(2), 'scsi0')).equals(content))
  const later = await temporary.reopen()
  const built = await backUp(later, point(3), source(), { since: since(point(2)), auditedShare: 0 })
  assert.equal(built.reading?.how, 'changes')
})

test('what an unchanged backup costs does not grow with the disk', async () => {
  await using temporary = await temporaryDatastore()
  const open = await temporary.reopen()
  // 4 TiB of which nothing is data: 33 million chunks, none of which may be looked at one by one.
  const sizeBytes = 4 * 1024 * 1024 * MiB
  const huge = (isUnchanged: boolean): BlockSource => ({
    ...memorySource(Buffer.alloc(0)),
    sizeBytes,
    async *extents() {
      yield { offset: 0, length: sizeBytes - 7 * chunk, isZero: true, isUnchanged }
      yield { offset: sizeBytes - 7 * chunk, length: 7 * chunk, isZero: false }
    },
    read: async (_, into) => void into.fill(7),
  })
  await backUp(open, point(0), huge(false))
  const made = await backUp(open, point(1), huge(true), { since: since(point(0)), auditedShare: 0.000_01 })
  assert.deepEqual([made.reading?.how, made.chunks, made.newChunks], ['changes', 7, 0])
})

test('regions cover every chunk that changed once, in order, and none that did not', async () => {
  const extent = fc.record({
    length: fc.integer({ min: 1, max: 400 }),
    isZero: fc.boolean(),
    isUnchanged: fc.boolean(),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(extent, { minLength: 1, maxLength: 30 }), async (list) => {
      let sizeBytes = 0
      const extents = list.map(({ length, ...kind }) => {
        const offset = sizeBytes
        sizeBytes += length * 512
        return { offset, length: length * 512, ...kind }
      })
      const found: ChangeRegion[] = []
      const asStream = async function* () {
        yield* extents
      }
      const geometry = { sizeBytes, chunkBytes: 64 * KiB }
      for await (const one of changeRegions(asStream(), geometry, new Sample(seeded(), 0))) found.push(one)
      assert.ok(found.every(({ length, isZero }) => isZero || length <= 1 * MiB))
      for (let from = 0; from < sizeBytes; from += 64 * KiB) {
        const to = Math.min(sizeBytes, from + 64 * KiB)
        const over = extents.filter(({ offset, length }) => offset < to && offset + length > from)
        const isChanged = over.some(({ isUnchanged }) => !isUnchanged)
        const covering = found.filter(({ offset, length }) => offset <= from && offset + length >= to)
        assert.equal(covering.length, isChanged ? 1 : 0)
        if (isChanged)
          assert.equal(
            covering[0]?.isZero,
            over.every(({ isZero }) => isZero),
          )
      }
      assert.deepEqual(
        found.map(({ offset }) => offset),
        found.map(({ offset }) => offset).toSorted((a, b) => a - b),
      )
    }),
    { numRuns: 60 },
  )
})

test('every chunk is looked at with the same chance', () => {
  const counts = Array.from({ length: 20 }, () => 0)
  const sample = new Sample(seeded(), 0.25)
  for (let round = 0; round < 4_000; round += 1) {
    const split = randomInt(20)
    for (const at of sample.of(split)) counts[at] = (counts[at] ?? 0) + 1
    for (const at of sample.of(20 - split)) counts[split + at] = (counts[split + at] ?? 0) + 1
  }
  // Expected 1,000 each; 150 are five standard deviations.
  assert.ok(
    counts.every((count) => Math.abs(count - 1_000) < 150),
    counts.join(' '),
  )
})

/** Dice that always fall the same. */
function seeded() {
  let state = 12_345
  const next = () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) >>> 24
  return { bytes: (count: number) => Uint8Array.from({ length: count }, next), uuid: () => '' }
}
