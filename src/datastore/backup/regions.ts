/**
 * Turns a source's extents into the reads a backup makes: runs of whole chunks that hold data.
 *
 * Extents are hints about where data is and never decide where chunks are cut: cuts lie at multiples of
 * the chunk size, so the same data gives the same chunks whatever the holes around it.
 */
import { Fault } from '#base/fault.ts'
import { defaultChunkBytes, readBytes } from '../format.ts'
import type { Extent } from './block-source.ts'

export interface Region {
  readonly offset: number
  /** At most `readBytes`; a multiple of the chunk size, except at the end of the disk. */
  readonly length: number
}

/** @param cutBytes size of a chunk. @throws Fault `failed` when the extents overlap, go back or leave the disk. */
export async function* dataRegions(
  extents: AsyncIterable<Extent>,
  sizeBytes: number,
  cutBytes: number = defaultChunkBytes,
): AsyncGenerator<Region> {
  let end = 0 // of what the source has described
  let open: { from: number; to: number } | undefined
  for await (const { offset, length, isZero } of extents) {
    if (offset !== end || length <= 0 || offset + length > sizeBytes) {
      throw new Fault('failed', `the source describes ${length} bytes at ${offset} after ${end} of ${sizeBytes} bytes`)
    }
    end = offset + length
    if (isZero) continue
    const from = floorTo(cutBytes, offset)
    const to = Math.min(sizeBytes, floorTo(cutBytes, end + cutBytes - 1))
    if (open && from <= open.to) open.to = to
    else {
      if (open) yield* cut(open.from, open.to)
      open = { from, to }
    }
    // A disk full of data is one extent; what is complete must not wait for its end.
    while (open.to - open.from > 2 * readBytes) {
      yield { offset: open.from, length: readBytes }
      open.from += readBytes
    }
  }
  if (end !== sizeBytes) throw new Fault('failed', `the source describes ${end} of ${sizeBytes} bytes`)
  if (open) yield* cut(open.from, open.to)
}

function* cut(from: number, to: number): Generator<Region> {
  for (let offset = from; offset < to; offset += readBytes) yield { offset, length: Math.min(readBytes, to - offset) }
}

function floorTo(cutBytes: number, offset: number): number {
  return offset - (offset % cutBytes)
}
