/** Whatever happened to the backups of some disks: what they need stays, and nothing else. */
import assert from 'node:assert/strict'
import type { Mark } from '#base/pace.ts'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { KiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { memorySource } from '../../../test/fixtures/datastore.ts'
import { backUp, point, temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import type { BlockSource, Extent } from '../backup/block-source.ts'
import type { OpenDatastore } from '../datastore.ts'
import { basesOf, DiskMap, isZeroId } from '../maps/disk-map.ts'
import { pieceEntries } from '../format.ts'
import { collectGarbage } from '../collect/garbage.ts'
import { LiveChunks } from './live-chunks.ts'
import { allEntries } from '../index/merge.ts'
import { packName } from '../packs/pack.ts'
import { printPoint, type RestorePoint } from '../point.ts'
import { verifyBackup } from '../verify/verify.ts'

const chunkBytes = 64 * KiB

/** A sparse disk: what some of its chunks hold, by their numbers. */
interface Disk {
  readonly chunks: number
  readonly data: ReadonlyMap<number, number>
}

/** @param since as it was when its changes began to be recorded */
function sourceOf({ chunks, data }: Disk, since?: Disk): BlockSource {
  const all = [...new Set([...data.keys(), ...(since?.data.keys() ?? [])])].toSorted((a, b) => a - b)
  const extent = (from: number, to: number, isZero: boolean, isUnchanged: boolean): Extent => {
    return {
      offset: from * chunkBytes,
      length: (to - from) * chunkBytes,
      isZero,
      isUnchanged: since !== undefined && isUnchanged,
    }
  }
  return {
    ...memorySource(Buffer.alloc(0)),
    sizeBytes: chunks * chunkBytes,
    async *extents() {
      let end = 0
      for (const at of all) {
        if (at > end) yield extent(end, at, true, true)
        yield extent(at, at + 1, !data.has(at), data.get(at) === since?.data.get(at))
        end = at + 1
      }
      if (end < chunks) yield extent(end, chunks, true, true)
    },
    async read(offset, into) {
      for (let at = 0; at < into.length; at += chunkBytes) {
        const seed = data.get((offset + at) / chunkBytes) ?? 0
        const chunk = into.subarray(at, at + chunkBytes)
        if (seed === 0) chunk.fill(0)
        else
          for (let byte = 0; byte < chunk.length; byte += 4)
            Buffer.from(chunk.buffer, chunk.byteOffset).writeUInt32LE(seed, byte)
      }
    },
  }
}

/** By reading every map that is there, from its first entry to its last. */
async function neededBy(open: OpenDatastore): Promise<Set<string>> {
  const needed = new Set<string>()
  const need = (id: Buffer) => needed.add(id.toString('hex', 0, 16))
  for (const one of await open.datastore.points()) {
    const { disks, files } = await open.body(one)
    for (const { chunks } of files) for (const id of chunks) need(Buffer.from(id, 'hex'))
    for (const { sizeBytes, root, prints } of disks) {
      for (const [ids, isOfChunks] of [
        [root, true],
        [prints ?? [], false],
      ] as const) {
        const roots = ids.map((id) => Buffer.from(id, 'hex'))
        for (const id of roots) need(id)
        if (roots.length === 0) continue
        const map = await DiskMap.open(open.chunks, sizeBytes / chunkBytes, roots)
        for (let piece = 0; piece < map.pieces; piece += 1) {
          if (isZeroId(map.pieceId(piece))) continue
          need(map.pieceId(piece))
          for await (const base of basesOf(open.chunks, map.pieceId(piece))) need(base)
        }
        if (isOfChunks) for await (const { id } of map.entries()) need(id)
      }
    }
  }
  return needed
}

async function idsIn({ index }: OpenDatastore): Promise<Set<string>> {
  const ids = new Set<string>()
  for await (const entries of allEntries(index.segments)) for (const { id } of entries) ids.add(id.toString('hex'))
  return ids
}

async function liveIn(open: OpenDatastore, points: readonly RestorePoint[]): Promise<Set<string>> {
  const live = await LiveChunks.of(open.index.segments)
  for (const one of points) await live.mark(open, await open.body(one))
  const ids = new Set<string>()
  for (const id of await idsIn(open)) if (live.has(Buffer.from(id, 'hex'))) ids.add(id)
  assert.equal(live.live, ids.size)
  return ids
}

/** Guests whose disks change and are backed up, and backups that are removed. */
class History {
  readonly #open: OpenDatastore
  readonly #disks = new Map<string, Disk>()
  readonly #last = new Map<string, { readonly point: RestorePoint; readonly disk: Disk }>()
  #made = 0

  constructor(open: OpenDatastore) {
    this.#open = open
  }

  set(guest: string, disk: Disk): void {
    this.#disks.set(guest, disk)
  }

  disk(guest: string): Disk {
    return this.#disks.get(guest) ?? { chunks: 0, data: new Map() }
  }

  /** @param isBack on a day when the clock was wrong: it looks older than what it is built upon */
  async backUp(guest: string, isBack = false): Promise<void> {
    const disk = this.disk(guest)
    const last = this.#last.get(guest)
    this.#made += 1
    const name = point(isBack ? -this.#made : this.#made, guest)
    await using writer = await this.#open.begin(name)
    const isRecorded = last && last.disk.chunks === disk.chunks
    const since = isRecorded ? { since: { point: last.point, disk: 'scsi0', record: printPoint(last.point) } } : {}
    const source = sourceOf(disk, isRecorded ? last.disk : undefined)
    await writer.addDisk('scsi0', source, { record: printPoint(name), auditedShare: 0, ...since })
    await writer.commit()
    this.#last.set(guest, { point: name, disk })
  }
}

test('whatever is backed up, grown, copied and removed: what is needed is what reading every map finds', async () => {
  const position = fc.oneof(fc.nat(5), fc.nat(2 * pieceEntries + 500))
  const writes = fc.array(fc.tuple(position, fc.nat(50)), { minLength: 1, maxLength: 12 })
  const guest = fc.constantFrom('1', '2', '3')
  const act = fc.oneof(
    { weight: 8, arbitrary: fc.record({ act: fc.constant('write' as const), guest, writes, isBack: fc.boolean() }) },
    {
      weight: 1,
      arbitrary: fc.record({
        act: fc.constant('resize' as const),
        guest,
        chunks: fc.integer({ min: 1, max: 2 * pieceEntries + 600 }),
      }),
    },
    { weight: 1, arbitrary: fc.record({ act: fc.constant('clone' as const), guest, from: guest }) },
    { weight: 4, arbitrary: fc.record({ act: fc.constant('remove' as const), which: fc.nat() }) },
    { weight: 1, arbitrary: fc.record({ act: fc.constant('collect' as const) }) },
  )
  await fc.assert(
    fc.asyncProperty(fc.array(act, { minLength: 5, maxLength: 25 }), async (acts) => {
      await using temporary = await temporaryDatastore({ chunkBytes })
      const open = await temporary.reopen()
      const history = new History(open)
      for (const step of acts) {
        if (step.act === 'write') {
          const { chunks, data } = history.disk(step.guest)
          const size = chunks === 0 ? 2 * pieceEntries + 500 : chunks
          const written = new Map(data)
          for (const [at, seed] of step.writes)
            if (seed === 0) written.delete(at % size)
            else written.set(at % size, seed)
          history.set(step.guest, { chunks: size, data: written })
          await history.backUp(step.guest, step.isBack)
        } else if (step.act === 'resize') {
          const { data } = history.disk(step.guest)
          history.set(step.guest, { chunks: step.chunks, data: new Map([...data].filter(([at]) => at < step.chunks)) })
          await history.backUp(step.guest)
        } else if (step.act === 'clone') {
          history.set(step.guest, history.disk(step.from))
          await history.backUp(step.guest)
        } else if (step.act === 'remove') {
          const points = await open.datastore.points()
          const going = points[step.which % Math.max(1, points.length)]
          if (going) await open.datastore.remove(going)
        } else await collectGarbage(await temporary.reopen())
      }
      const now = await temporary.reopen()
      const needed = await neededBy(now)
      const points = await now.datastore.points()
      assert.deepEqual(await liveIn(now, points), needed)
      // In any other order as well.
      assert.deepEqual(await liveIn(now, points.toReversed()), needed)
      await collectGarbage(await temporary.reopen())
      const after = await temporary.reopen()
      assert.deepEqual(await idsIn(after), needed)
      for (const one of points) await verifyBackup(after, one)
    }),
    { numRuns: 5, endOnFailure: true },
  )
})

test('of what deltas are based on all is kept, and of what they hide nothing', async () => {
  await using temporary = await temporaryDatastore({ chunkBytes })
  const open = await temporary.reopen()
  const history = new History(open)
  let disk: Disk = { chunks: 64, data: new Map(Array.from({ length: 64 }, (_, at) => [at, 1_000 + at])) }
  // Further than deltas may be made of deltas.
  for (let day = 0; day < 28; day += 1) {
    disk = { ...disk, data: new Map(disk.data).set(day % 5, 5_000 + day) }
    history.set('1', disk)
    await history.backUp('1')
  }
  for (const [at, one] of (await open.datastore.points()).entries()) if (at % 7 !== 6) await open.datastore.remove(one)
  const now = await temporary.reopen()
  const needed = await neededBy(now)
  assert.deepEqual(await liveIn(now, await now.datastore.points()), needed)
  const last = new Map<string, number | undefined>()
  const onProgress = ({ phase, fraction }: Mark) => void last.set(phase, fraction)
  const { removedChunks, rewrittenPacks, removedPacks } = await collectGarbage(await temporary.reopen(), { onProgress })
  assert.ok(removedChunks > 0)
  const packs = [...(rewrittenPacks > 0 ? ['rewrite'] : []), ...(rewrittenPacks + removedPacks > 0 ? ['remove'] : [])]
  for (const phase of ['backups', 'index', ...packs]) assert.equal(last.get(phase), 1, `${phase} is told of to its end`)
  assert.deepEqual(await idsIn(await temporary.reopen()), needed)
})

test('a look at a backup that was cut off leaves nothing out for another one like it', async () => {
  await using temporary = await temporaryDatastore({ chunkBytes })
  const open = await temporary.reopen()
  const content = Buffer.concat(Array.from({ length: 6 }, (_, at) => Buffer.alloc(chunkBytes, at + 1)))
  const { disks } = await backUp(open, point(0), { scsi0: content })
  await backUp(open, point(1, '101'), { scsi0: content })
  const root = Buffer.from(disks[0]?.root[0] ?? '', 'hex')
  const whole = await neededBy(open)
  const live = await LiveChunks.of(open.index.segments)
  const lost = await temporary.reopen()
  const pack = (await lost.index.find(root))?.pack ?? ''
  const body = await lost.body(point(0))
  await rm(join(temporary.path, packName(pack)))
  await assert.rejects(live.mark(lost, body), (fault) => isFault(fault, 'damaged'))
  // Opened while it was there.
  await live.mark(open, await open.body(point(1, '101')))
  const ids = [...whole].filter((id) => !live.has(Buffer.from(id, 'hex')))
  assert.deepEqual(ids, [])
})
