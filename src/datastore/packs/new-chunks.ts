/**
 * Chunks a writer has stored and nobody else has found yet: an open-addressing table in typed arrays, emptied into a
 * segment before it grows large. A `Map` of strings would take five times the memory.
 */
import { shortIdBytes } from '../format.ts'
import type { PackEntry } from './pack.ts'

const columns = 5
const fullest = 0.7

/** Places in packs that have numbers until they have names. */
export interface NumberedPlace {
  readonly pack: number
  readonly offset: number
  readonly length: number
  readonly plainBytes: number
  readonly flags: number
}

export class NewChunks {
  #slots = 2 ** 12
  #ids = Buffer.alloc(this.#slots * shortIdBytes)
  /** Pack, offset, length, bytes of content, flags. Length 0: the slot is free. */
  #places = new Uint32Array(this.#slots * columns)
  #count = 0

  get count(): number {
    return this.#count
  }

  has(id: Buffer): boolean {
    return this.#places[this.#slotOf(id) * columns + 2] !== 0
  }

  get(id: Buffer): NumberedPlace | undefined {
    const from = this.#slotOf(id) * columns
    const [pack = 0, offset = 0, length = 0, plainBytes = 0, flags = 0] = this.#places.subarray(from, from + columns)
    return length === 0 ? undefined : { pack, offset, length, plainBytes, flags }
  }

  add(id: Buffer, pack: number, { offset, length, plainBytes, flags }: PackEntry): void {
    if (this.#count >= this.#slots * fullest) this.#grow()
    const slot = this.#slotOf(id)
    if (this.#places[slot * columns + 2] !== 0) return
    id.copy(this.#ids, slot * shortIdBytes, 0, shortIdBytes)
    this.#places.set([pack, offset, length, plainBytes, flags], slot * columns)
    this.#count += 1
  }

  /** In order of their ids. */
  *entries(): Generator<{ readonly id: Buffer } & NumberedPlace> {
    const used = new Uint32Array(this.#count)
    let filled = 0
    for (let slot = 0; slot < this.#slots; slot += 1) {
      if (this.#places[slot * columns + 2] !== 0) used[filled++] = slot
    }
    used.sort((a, b) => this.#compare(a, b))
    for (const slot of used) {
      const id = this.#ids.subarray(slot * shortIdBytes, (slot + 1) * shortIdBytes)
      const at = (column: number) => this.#places[slot * columns + column] ?? 0
      yield { id, pack: at(0), offset: at(1), length: at(2), plainBytes: at(3), flags: at(4) }
    }
  }

  clear(): void {
    this.#slots = 2 ** 12
    this.#ids = Buffer.alloc(this.#slots * shortIdBytes)
    this.#places = new Uint32Array(this.#slots * columns)
    this.#count = 0
  }

  #compare(a: number, b: number): number {
    const [at, other] = [a * shortIdBytes, b * shortIdBytes]
    return this.#ids.compare(this.#ids, other, other + shortIdBytes, at, at + shortIdBytes)
  }

  /** The slot that holds the id, or the free one where it belongs. */
  #slotOf(id: Buffer): number {
    // An id is evenly spread already; its first bytes are a hash.
    let slot = id.readUInt32LE(0) % this.#slots
    while (this.#places[slot * columns + 2] !== 0) {
      const at = slot * shortIdBytes
      if (this.#ids.compare(id, 0, shortIdBytes, at, at + shortIdBytes) === 0) return slot
      slot = (slot + 1) % this.#slots
    }
    return slot
  }

  #grow(): void {
    const [ids, places] = [this.#ids, this.#places]
    this.#slots *= 2
    this.#ids = Buffer.alloc(this.#slots * shortIdBytes)
    this.#places = new Uint32Array(this.#slots * columns)
    for (let at = 0; at < places.length / columns; at += 1) {
      if (places[at * columns + 2] === 0) continue
      const id = ids.subarray(at * shortIdBytes, (at + 1) * shortIdBytes)
      const slot = this.#slotOf(id)
      id.copy(this.#ids, slot * shortIdBytes)
      this.#places.set(places.subarray(at * columns, (at + 1) * columns), slot * columns)
    }
  }
}
