/**
 * Content of files on its way into chunks, for the piece in the making. Content is cut at multiples of a chunk from the
 * start of its file; what is shorter than a quarter of one (whole small files, and ends of others) shares chunks.
 */
import { readSync } from 'node:fs'
import { isZero, KiB } from '#base/bytes.ts'
import type { PieceBuilder } from './piece.ts'
import type { Extent } from './record.ts'

/** Shorter content shares chunks. */
export const sharedBytes = 32 * KiB

/** Where content goes. */
export interface ContentStore {
  readonly chunkBytes: number
  /** @returns id of the chunk, and bytes stored: 0 for what was there. @throws Fault `exhausted` */
  put: (content: Buffer) => Promise<{ readonly id: Buffer; readonly storedBytes: number }>
}

export interface ContentCounts {
  readBytes: number
  newChunks: number
  newStoredBytes: number
}

export class Content {
  readonly #chunks: ContentStore
  readonly #builder: PieceBuilder
  readonly #counts: ContentCounts
  readonly #own: Buffer
  /** Its number in the piece is known, what it will be is not. */
  readonly #shared: { readonly bytes: Buffer; used: number; number: number }

  constructor(chunks: ContentStore, builder: PieceBuilder, counts: ContentCounts) {
    this.#chunks = chunks
    this.#own = Buffer.allocUnsafeSlow(chunks.chunkBytes)
    this.#shared = { bytes: Buffer.allocUnsafeSlow(chunks.chunkBytes), used: 0, number: -1 }
    this.#builder = builder
    this.#counts = counts
  }

  /** Where content lies now, as much of it as there is; nothing when it is zeros. It is at most a chunk. */
  async add(fd: number, offset: number, length: number): Promise<Extent | undefined> {
    if (length < sharedBytes) {
      await this.#roomFor(length)
      const { bytes, used } = this.#shared
      return this.#sharedExtent(offset, readAll(fd, bytes, { at: used, offset, length }))
    }
    const read = readAll(fd, this.#own, { at: 0, offset, length })
    this.#counts.readBytes += read
    const plain = this.#own.subarray(0, read)
    if (isZero(plain)) return undefined
    return { offset, chunk: this.#builder.addChunk(await this.#put(plain)), skip: 0, length: read }
  }

  /** Content that is at hand. */
  async addBytes(content: Buffer): Promise<Extent[]> {
    const extents: Extent[] = []
    for (let offset = 0; offset < content.length; offset += sharedBytes) {
      const part = content.subarray(offset, offset + sharedBytes)
      await this.#roomFor(part.length)
      part.copy(this.#shared.bytes, this.#shared.used)
      const extent = this.#sharedExtent(offset, part.length)
      if (extent) extents.push(extent)
    }
    return extents
  }

  /** To be called before the piece ends. */
  async end(): Promise<void> {
    const { bytes, used, number } = this.#shared
    if (number < 0) return
    this.#builder.setChunk(number, await this.#put(bytes.subarray(0, used)))
    this.#shared.used = 0
    this.#shared.number = -1
  }

  async #roomFor(length: number): Promise<void> {
    if (this.#shared.used + length > this.#chunks.chunkBytes) await this.end()
  }

  #sharedExtent(offset: number, length: number): Extent | undefined {
    if (length === 0) return undefined
    const shared = this.#shared
    if (shared.number < 0) shared.number = this.#builder.addChunk()
    const skip = shared.used
    shared.used += length
    this.#counts.readBytes += length
    return { offset, chunk: shared.number, skip, length }
  }

  async #put(plain: Buffer): Promise<Buffer> {
    const { id, storedBytes } = await this.#chunks.put(plain)
    this.#counts.newChunks += storedBytes > 0 ? 1 : 0
    this.#counts.newStoredBytes += storedBytes
    return id
  }
}

interface Read {
  /** In the buffer. */
  readonly at: number
  /** In the file. */
  readonly offset: number
  readonly length: number
}

/** As much as there is. */
function readAll(fd: number, into: Buffer, { at, offset, length }: Read): number {
  let done = 0
  while (done < length) {
    const read = readSync(fd, into, at + done, length - done, offset + done)
    if (read === 0) break
    done += read
  }
  return done
}
