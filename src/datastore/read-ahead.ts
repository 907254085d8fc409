/** Reads a source a few regions ahead of whoever works on them, with a bounded number of buffers. */
import type { BlockSource } from './block-source.ts'
import { readAhead as window } from './window.ts'
import { readBytes, readsAhead } from './format.ts'
import { dataRegions } from './regions.ts'

export interface FilledRegion {
  readonly offset: number
  /** Valid until the next region is asked for. */
  readonly bytes: Buffer
}

export async function* readSource(
  source: BlockSource,
  ahead: number = readsAhead,
  cutBytes?: number,
): AsyncGenerator<FilledRegion> {
  const free = Array.from({ length: ahead + 1 }, () => Buffer.allocUnsafe(readBytes))
  const regions = dataRegions(source.extents(), source.sizeBytes, cutBytes)
  const filled = window(regions, ahead, async ({ offset, length }) => {
    const buffer = free.pop()
    if (!buffer) throw new Error('more reads are on the way than there are buffers')
    const bytes = buffer.subarray(0, length)
    await source.read(offset, bytes)
    return { offset, bytes, buffer }
  })
  for await (const { offset, bytes, buffer } of filled) {
    yield { offset, bytes }
    free.push(buffer)
  }
}
