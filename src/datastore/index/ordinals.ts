/**
 * A number for each chunk of the index, in the order of their ids: what is kept of each is then a bit in an array.
 *
 * Chunks are told apart by the first half of their ids, so that a number takes 8 bytes and its look-up no call out of
 * JavaScript. Two that had that in common would share a number, and one would be kept as long as the other: of 2^24 chunks
 * two do by a chance of 2^-17.
 */
import { Fault } from '#base/fault.ts'
import { wordAt } from './id-bytes.ts'
import { allEntries } from './merge.ts'
import type { Segment, SegmentEntry } from './segment.ts'

/** Chunks on average that begin with the same bits, and are looked at one after another. */
const perBucket = 4
/** So many numbers there are of 32 bits: half a pebibyte in chunks of 128 KiB. */
const chunksMaximum = 2 ** 32 - 1

/** No fewer than there are chunks: one that lies in several packs may be counted more than once. */
export function mostOf(segments: readonly Segment[]): number {
  return segments.reduce((sum, { count }) => sum + count, 0)
}

export class ChunkOrdinals {
  readonly count: number
  readonly #high: Uint32Array
  readonly #low: Uint32Array
  /** The first chunk that begins with as many bits as a bucket has, or with more than those; one more behind the last. */
  readonly #buckets: Uint32Array
  readonly #shift: number

  /** @param high first 4 bytes of each id, in order @param low the 4 bytes behind them */
  private constructor(high: Uint32Array, low: Uint32Array) {
    this.count = high.length
    this.#high = high
    this.#low = low
    const bits = Math.max(1, Math.ceil(Math.log2(Math.max(1, this.count / perBucket))))
    this.#shift = 32 - bits
    this.#buckets = new Uint32Array(2 ** bits + 1).fill(this.count)
    for (let ordinal = this.count - 1; ordinal >= 0; ordinal -= 1) {
      this.#buckets[(high[ordinal] ?? 0) >>> this.#shift] = ordinal
    }
    // An empty one ends where it begins.
    for (let at = 2 ** bits - 1; at >= 0; at -= 1) {
      this.#buckets[at] = Math.min(this.#buckets[at] ?? 0, this.#buckets[at + 1] ?? 0)
    }
  }

  /**
   * @param onEntry is told of each, in order, as the first of the segments has it
   * @throws Fault `too-large` when there are more than have numbers
   */
  static async of(
    segments: readonly Segment[],
    onEntry: (entry: SegmentEntry, ordinal: number) => void = () => {},
  ): Promise<ChunkOrdinals> {
    const most = mostOf(segments)
    if (most > chunksMaximum) {
      throw new Fault(
        'too-large',
        `the index names ${most} chunks, more than the ${chunksMaximum} that can be told apart`,
        {
          remedy:
            'Back up into another datastore from now on: this one can still be read, but no garbage of it is collected.',
        },
      )
    }
    const [high, low] = [new Uint32Array(most), new Uint32Array(most)]
    let filled = 0
    for await (const entries of allEntries(segments)) {
      for (const entry of entries) {
        const [first, second] = [wordAt(entry.id, 0), wordAt(entry.id, 4)]
        if (filled > 0 && high[filled - 1] === first && low[filled - 1] === second) continue
        high[filled] = first
        low[filled] = second
        onEntry(entry, filled)
        filled += 1
      }
    }
    return new ChunkOrdinals(high.subarray(0, filled), low.subarray(0, filled))
  }

  /**
   * @param id 16 bytes or more, from `at` on
   * @returns nothing for what was stored later
   */
  of(id: Buffer, at = 0): number | undefined {
    const [first, second] = [wordAt(id, at), wordAt(id, at + 4)]
    const bucket = first >>> this.#shift
    const end = this.#buckets[bucket + 1] ?? 0
    for (let ordinal = this.#buckets[bucket] ?? 0; ordinal < end; ordinal += 1) {
      if (this.#high[ordinal] === first && this.#low[ordinal] === second) return ordinal
    }
    return undefined
  }
}

/** Some of the chunks that have numbers. */
export class ChunkSet {
  readonly #bits: Uint8Array
  #size = 0

  constructor({ count }: Pick<ChunkOrdinals, 'count'>) {
    this.#bits = new Uint8Array(Math.ceil(count / 8))
  }

  get size(): number {
    return this.#size
  }

  has(ordinal: number): boolean {
    return ((this.#bits[ordinal >>> 3] ?? 0) & (1 << (ordinal & 7))) !== 0
  }

  /** @returns whether it was not in it */
  add(ordinal: number): boolean {
    const [at, bit] = [ordinal >>> 3, 1 << (ordinal & 7)]
    const bits = this.#bits[at] ?? 0
    if ((bits & bit) !== 0) return false
    this.#bits[at] = bits | bit
    this.#size += 1
    return true
  }

  clear(): void {
    this.#bits.fill(0)
    this.#size = 0
  }
}
