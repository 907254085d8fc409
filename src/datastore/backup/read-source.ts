/** Reads a source a few regions ahead of whoever works on them, with a bounded number of buffers. */
import { allDone } from '#base/all-done.ts'
import { letGo } from '#base/let-go.ts'
import { alignedBuffer, blockBytes } from '#host/files/direct-file.ts'
import type { BlockSource } from './block-source.ts'
import { readAhead as window } from '../window.ts'
import { readBytes, readsAhead } from '../format.ts'
import { dataRegions, type Region } from './regions.ts'

export interface FilledRegion {
  readonly offset: number
  /** Valid until the next region is asked for. */
  readonly bytes: Buffer
}

interface Wanted extends Region {
  /** What is known to be zero is not read and has no bytes. */
  readonly isZero?: boolean
}

/** Small regions are read at once, together at most as much as a large one. */
const regionsAtOnce = 32

export function readSource(
  source: BlockSource,
  ahead: number = readsAhead,
  cutBytes?: number,
): AsyncGenerator<FilledRegion & Region> {
  return readRegions(source, dataRegions(source.extents(), source.sizeBytes, cutBytes), ahead)
}

export async function* readRegions<R extends Wanted>(
  source: BlockSource,
  regions: AsyncIterable<R>,
  ahead: number = readsAhead,
): AsyncGenerator<R & FilledRegion> {
  const free = Array.from({ length: ahead + 1 }, () => alignedBuffer(readBytes))
  const filled = window(batches(regions), ahead, async (batch) => {
    const buffer = free.pop()
    if (!buffer) throw new Error('more reads are on the way than there are buffers')
    let at = 0
    const placed = batch.map((region) => {
      const bytes = buffer.subarray(at, region.isZero ? at : at + region.length)
      at += roomFor(region)
      return { ...region, bytes }
    })
    // Nobody may still write into the buffer afterwards.
    await allDone(placed.filter(({ isZero }) => !isZero).map(async ({ offset, bytes }) => source.read(offset, bytes)))
    return { placed, buffer }
  })
  for await (const { placed, buffer } of filled) {
    yield* placed
    free.push(buffer)
  }
  // Whoever stops earlier leaves them to the collector: something may be read into them still.
  for (const buffer of free) letGo(buffer)
}

/** Memory to read it into begins where direct access wants it to. */
function roomFor({ length, isZero }: Wanted): number {
  return isZero ? 0 : Math.ceil(length / blockBytes) * blockBytes
}

async function* batches<R extends Wanted>(regions: AsyncIterable<R>): AsyncGenerator<R[]> {
  let batch: R[] = []
  let bytes = 0
  for await (const region of regions) {
    const more = roomFor(region)
    if (batch.length === regionsAtOnce || bytes + more > readBytes) {
      yield batch
      batch = []
      bytes = 0
    }
    batch.push(region)
    bytes += more
  }
  if (batch.length > 0) yield batch
}
