/**
 * A disk of a backup to be read in small pieces and in any order, as a running machine does: whole chunks are read, and the
 * last ones are kept.
 */
import { isZero, MiB } from '#base/bytes.ts'
import { messageOf } from '#base/fault.ts'
import type { ReadableDisk } from '#host/nbd/nbd-export.ts'
import type { BlockSource } from '../backup/block-source.ts'
import { HoleMap } from './hole-map.ts'

/** What a disk is served from; either engine's reader has it. */
export type ServedSource = Pick<BlockSource, 'sizeBytes' | 'read' | 'extents'>

export interface ServedHow {
  readonly chunkBytes: number
  /** Told of each chunk that could not be read, once. */
  readonly onDamage?: (damage: { readonly offset: number; readonly length: number; readonly why: string }) => void
}

const keptBytes = 32 * MiB

export class ServedDisk implements ReadableDisk {
  readonly sizeBytes: number
  readonly #source: ServedSource
  readonly #how: ServedHow
  readonly #kept = new Map<number, Promise<Buffer>>()
  readonly #told = new Set<number>()
  #holes: Promise<HoleMap> | undefined
  #readBytes = 0

  constructor(source: ServedSource, how: ServedHow) {
    this.sizeBytes = source.sizeBytes
    this.#source = source
    this.#how = how
  }

  /** Read from the backup so far, zeros not counted. */
  get readBytes(): number {
    return this.#readBytes
  }

  async statusOf(offset: number, length: number): Promise<readonly { length: number; isZero: boolean }[]> {
    try {
      return (await this.#map()).parts(offset, length)
    } catch {
      // Who reads there is told; who asks again and again what is there (QEMU does) would ask for ever.
      return [{ length, isZero: false }]
    }
  }

  /** @throws Fault `damaged` naming the chunk */
  async read(offset: number, into: Uint8Array): Promise<void> {
    const { chunkBytes } = this.#how
    const work: Promise<void>[] = []
    for (let at = 0; at < into.length;) {
      const position = Math.floor((offset + at) / chunkBytes)
      const skip = offset + at - position * chunkBytes
      const length = Math.min(chunkBytes - skip, into.length - at)
      const part = into.subarray(at, at + length)
      work.push(this.#chunk(position).then((chunk) => part.set(chunk.subarray(skip, skip + length))))
      at += length
    }
    await Promise.all(work)
  }

  #chunk(position: number): Promise<Buffer> {
    const known = this.#kept.get(position)
    // Put last again: the first is the one to go.
    this.#kept.delete(position)
    const chunk = known ?? this.#readChunk(position)
    this.#kept.set(position, chunk)
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= keptBytes / this.#how.chunkBytes) break
      this.#kept.delete(oldest)
    }
    return chunk
  }

  async #readChunk(position: number): Promise<Buffer> {
    const { chunkBytes, onDamage } = this.#how
    const offset = position * chunkBytes
    const content = Buffer.alloc(Math.min(chunkBytes, this.sizeBytes - offset))
    try {
      await this.#source.read(offset, content)
    } catch (cause) {
      // It may be readable the next time: backups bring damaged chunks back.
      this.#kept.delete(position)
      if (!this.#told.has(position)) onDamage?.({ offset, length: content.length, why: messageOf(cause) })
      this.#told.add(position)
      throw cause
    }
    if (!isZero(content)) this.#readBytes += content.length
    return content
  }

  #map(): Promise<HoleMap> {
    if (!this.#holes) {
      this.#holes = HoleMap.of(this.#source.extents(), this.sizeBytes)
      this.#holes.catch(() => (this.#holes = undefined))
    }
    return this.#holes
  }
}
