/** Reads a source a few regions ahead of whoever works on them, with a bounded number of buffers. */
import { alignedBuffer } from '#host/files/direct-file.ts'
import type { BlockSource } from './block-source.ts'
import { readAhead as window } from '../window.ts'
import { readBytes, readsAhead } from '../format.ts'
import { dataRegions, type Region } from './regions.ts'

export interface FilledRegion {
  readonly offset: number
  /** Valid until the next region is asked for. */
  readonly bytes: Buffer
}

export function readSource(
  source: BlockSource,
  ahead: number = readsAhead,
  cutBytes?: number,
): AsyncGenerator<FilledRegion & Region> {
  return readRegions(source, dataRegions(source.extents(), source.sizeBytes, cutBytes), ahead)
}

/** What is known to be zero is not read and has no bytes. */
export async function* readRegions<R extends Region & { readonly isZero?: boolean }>(
  source: BlockSource,
  regions: AsyncIterable<R>,
  ahead: number = readsAhead,
): AsyncGenerator<R & FilledRegion> {
  const free = Array.from({ length: ahead + 1 }, () => alignedBuffer(readBytes))
  const filled = window(regions, ahead, async (region) => {
    if (region.isZero) return { region, bytes: Buffer.alloc(0) }
    const buffer = free.pop()
    if (!buffer) throw new Error('more reads are on the way than there are buffers')
    const bytes = buffer.subarray(0, region.length)
    await source.read(region.offset, bytes)
    return { region, bytes, buffer }
  })
  for await (const { region, bytes, buffer } of filled) {
    yield { ...region, bytes }
    if (buffer) free.push(buffer)
  }
}
