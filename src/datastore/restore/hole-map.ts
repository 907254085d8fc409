/**
 * Where a disk is not zero, to be asked about any place at once. Extents come in order and by the million; what is kept has
 * a bound: of a disk in more pieces than that, the smallest holes are forgotten and count as data.
 */
import { KiB } from '#base/bytes.ts'
import type { Extent } from '../backup/block-source.ts'

const piecesMaximum = 256 * 1024

export class HoleMap {
  /** Beginnings and ends of what is not zero, in turns. */
  readonly #edges: Float64Array
  readonly #sizeBytes: number

  private constructor(edges: Float64Array, sizeBytes: number) {
    this.#edges = edges
    this.#sizeBytes = sizeBytes
  }

  /** @param most pieces kept; for tests */
  static async of(extents: AsyncIterable<Extent>, sizeBytes: number, most = piecesMaximum): Promise<HoleMap> {
    let edges: number[] = []
    let leastHole = 1
    for await (const { offset, length, isZero } of extents) {
      if (isZero || length === 0) continue
      if (offset - (edges.at(-1) ?? -leastHole) < leastHole) edges[edges.length - 1] = offset + length
      else edges.push(offset, offset + length)
      while (edges.length > most * 2) {
        leastHole = Math.max(leastHole, 32 * KiB) * 2
        edges = withoutHoles(edges, leastHole)
      }
    }
    return new HoleMap(Float64Array.from(edges), sizeBytes)
  }

  /** Parts from `offset` on, in order and without gaps, until `length` bytes are covered or the disk ends. */
  parts(offset: number, length: number): { readonly length: number; readonly isZero: boolean }[] {
    const parts: { length: number; isZero: boolean }[] = []
    const end = Math.min(offset + length, this.#sizeBytes)
    // The first edge behind the place: an odd one ends data.
    let edge = this.#firstBehind(offset)
    for (let at = offset; at < end; edge += 1) {
      const next = Math.min(this.#edges[edge] ?? this.#sizeBytes, this.#sizeBytes)
      parts.push({ length: next - at, isZero: edge % 2 === 0 })
      at = next
    }
    return parts
  }

  #firstBehind(offset: number): number {
    let [low, high] = [0, this.#edges.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#edges[middle] ?? 0) > offset) high = middle
      else low = middle + 1
    }
    return low
  }
}

function withoutHoles(edges: readonly number[], leastHole: number): number[] {
  const kept: number[] = []
  for (let at = 0; at < edges.length; at += 2) {
    const [begin = 0, end = 0] = [edges[at], edges[at + 1]]
    if (begin - (kept.at(-1) ?? -leastHole) < leastHole) kept[kept.length - 1] = end
    else kept.push(begin, end)
  }
  return kept
}
