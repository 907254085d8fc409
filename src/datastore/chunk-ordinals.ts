/** A number for each chunk of the index, in the order of their ids: what is kept of each is then a bit in an array. */
import { shortIdBytes } from './format.ts'
import { mergedEntries } from './merge.ts'
import type { Segment, SegmentEntry } from './segment.ts'

/** Chunks on average that are looked at by halves around where an id must be. */
const near = 64

/** No fewer than there are chunks: one that lies in several packs may be counted more than once. */
export function mostOf(segments: readonly Segment[]): number {
  return segments.reduce((sum, { count }) => sum + count, 0)
}

export class ChunkOrdinals {
  readonly #ids: Buffer
  readonly count: number

  private constructor(ids: Buffer) {
    this.#ids = ids
    this.count = ids.length / shortIdBytes
  }

  /** @param onEntry is told of each, in order, as the first of the segments has it */
  static async of(
    segments: readonly Segment[],
    onEntry: (entry: SegmentEntry, ordinal: number) => void = () => {},
  ): Promise<ChunkOrdinals> {
    const ids = Buffer.allocUnsafe(mostOf(segments) * shortIdBytes)
    let filled = 0
    for await (const entry of mergedEntries(segments)) {
      entry.id.copy(ids, filled)
      onEntry(entry, filled / shortIdBytes)
      filled += shortIdBytes
    }
    return new ChunkOrdinals(ids.subarray(0, filled))
  }

  /** @param id 16 bytes or more. @returns nothing for what was stored later */
  of(id: Buffer): number | undefined {
    let [low, high] = this.#around(id)
    while (low <= high) {
      const middle = (low + high) >> 1
      const order = this.#compare(id, middle)
      if (order === 0) return middle
      if (order > 0) low = middle + 1
      else high = middle - 1
    }
    return undefined
  }

  /** Ids are evenly spread, so the place of one follows from its value, give or take. */
  #around(id: Buffer): [low: number, high: number] {
    const guess = Math.floor((id.readUInt32BE(0) / 2 ** 32) * this.count)
    let [low, high] = [Math.max(0, guess - near), Math.min(this.count - 1, guess + near)]
    for (let step = near; low > 0 && this.#compare(id, low) < 0; step *= 4) low = Math.max(0, low - step)
    for (let step = near; high < this.count - 1 && this.#compare(id, high) > 0; step *= 4) {
      high = Math.min(this.count - 1, high + step)
    }
    return [low, high]
  }

  #compare(id: Buffer, ordinal: number): number {
    const at = ordinal * shortIdBytes
    // Nearly always decided here, without a call out of JavaScript.
    const order = id.readUInt32BE(0) - this.#ids.readUInt32BE(at)
    return order === 0 ? -this.#ids.compare(id, 0, shortIdBytes, at, at + shortIdBytes) : order
  }
}
