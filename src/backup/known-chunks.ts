/**
 * Which chunks are stored already, and where: an open-addressing hash table in typed arrays, 44 bytes a
 * slot, bounded. Past the bound further chunks are simply not remembered: they are stored twice, which
 * costs space and never correctness. A `Map` of strings would take five times the memory.
 */
import type { Digest } from '#base/ids.ts'
import { digestBytes } from './digest.ts'
import { knownSlotsMaximum } from './format.ts'

/** Packs by a small number; a pack being written gets its name when it is closed. */
export class PackList {
  readonly #names: (Digest | undefined)[] = []

  add(name?: Digest): number {
    this.#names.push(name)
    return this.#names.length - 1
  }

  setName(pack: number, name: Digest): void {
    this.#names[pack] = name
  }

  nameOf(pack: number): Digest {
    const name = this.#names[pack]
    if (name === undefined) throw new Error(`pack number ${pack} is not closed yet`)
    return name
  }
}

export interface Location {
  /** Number in a `PackList`. */
  readonly pack: number
  readonly offset: number
  /** Of the blob. */
  readonly length: number
}

export class KnownChunks {
  #slots = 2 ** 12
  #digests = Buffer.alloc(this.#slots * digestBytes)
  #places = new Uint32Array(this.#slots * 3) // pack, offset, length; length 0: the slot is free
  #count = 0
  readonly #slotsMaximum: number

  constructor(slotsMaximum: number = knownSlotsMaximum) {
    this.#slotsMaximum = slotsMaximum
  }

  get count(): number {
    return this.#count
  }

  get isFull(): boolean {
    return this.#slots >= this.#slotsMaximum && this.#count >= this.#slots * 0.7
  }

  find(digest: Uint8Array): Location | undefined {
    const slot = this.#slotOf(digest)
    const [pack = 0, offset = 0, length = 0] = this.#places.subarray(slot * 3, slot * 3 + 3)
    return length === 0 ? undefined : { pack, offset, length }
  }

  /** Remembers a chunk; the first place of a chunk is kept. */
  add(digest: Uint8Array, { pack, offset, length }: Location): void {
    if (this.#count >= this.#slots * 0.7) {
      if (this.#slots >= this.#slotsMaximum) return
      this.#grow()
    }
    const slot = this.#slotOf(digest)
    if (this.#places[slot * 3 + 2] !== 0) return
    this.#digests.set(digest, slot * digestBytes)
    this.#places.set([pack, offset, length], slot * 3)
    this.#count += 1
  }

  /** The slot that holds the digest, or the free one where it belongs. */
  #slotOf(digest: Uint8Array): number {
    // A digest is evenly spread already; its first bytes are a hash.
    const view = Buffer.from(digest.buffer, digest.byteOffset, digest.byteLength)
    let slot = view.readUInt32LE(0) % this.#slots
    while (this.#places[slot * 3 + 2] !== 0) {
      const at = slot * digestBytes
      if (this.#digests.compare(view, 0, digestBytes, at, at + digestBytes) === 0) return slot
      slot = (slot + 1) % this.#slots
    }
    return slot
  }

  #grow(): void {
    const [digests, places] = [this.#digests, this.#places]
    this.#slots *= 2
    this.#digests = Buffer.alloc(this.#slots * digestBytes)
    this.#places = new Uint32Array(this.#slots * 3)
    for (let at = 0; at < places.length / 3; at += 1) {
      if (places[at * 3 + 2] === 0) continue
      const digest = digests.subarray(at * digestBytes, (at + 1) * digestBytes)
      const slot = this.#slotOf(digest)
      this.#digests.set(digest, slot * digestBytes)
      this.#places.set(places.subarray(at * 3, at * 3 + 3), slot * 3)
    }
  }
}
