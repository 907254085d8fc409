/** A disk of a backup, read at any place. */
import { Fault } from '#base/fault.ts'
import type { BackupReader } from './reader.ts'
import type { Extent } from '../backup/block-source.ts'
import { type DiskMap, isZeroId } from '../maps/disk-map.ts'
import { kinds, pieceEntries, shortIdBytes } from '../format.ts'
import type { ManifestDisk } from '../points/manifest.ts'
import { Ahead } from '../chunks/ahead.ts'
import type { ServedSource } from './served-disk.ts'

/** Pieces of the map kept, each 64 KiB for 512 MiB of the disk. */
const piecesKept = 64

export class DiskReader implements ServedSource {
  readonly facts: ManifestDisk
  readonly chunkBytes: number
  readonly #reader: BackupReader
  readonly #map: DiskMap
  readonly #pieces = new Map<number, Promise<Buffer>>()
  readonly #ahead: Ahead | undefined

  /** For `BackupReader.openDisk`. */
  constructor(reader: BackupReader, facts: ManifestDisk, map: DiskMap) {
    this.#reader = reader
    this.facts = facts
    this.chunkBytes = reader.chunkBytes
    this.#map = map
    this.#ahead = Ahead.of(reader.open.chunks)
  }

  get sizeBytes(): number {
    return this.facts.sizeBytes
  }

  async *extents(): AsyncGenerator<Extent> {
    let [from, to] = [0, 0] // of the data not yet reported
    for await (const { position } of this.#map.entries()) {
      const offset = position * this.chunkBytes
      if (offset > to) {
        if (to > from) yield { offset: from, length: to - from, isZero: false }
        yield { offset: to, length: offset - to, isZero: true }
        from = offset
      }
      to = Math.min(this.sizeBytes, offset + this.chunkBytes)
    }
    if (to > from) yield { offset: from, length: to - from, isZero: false }
    if (this.sizeBytes > to) yield { offset: to, length: this.sizeBytes - to, isZero: true }
  }

  /** Fills all of `into` from there on. @throws Fault `damaged` naming pack and chunk, `invalid` outside the disk */
  async read(offset: number, into: Uint8Array): Promise<void> {
    if (offset < 0 || offset + into.length > this.sizeBytes) {
      throw new Fault('invalid', `${into.length} bytes at ${offset} are outside of disk ${this.facts.name}`)
    }
    for (let at = offset; at < offset + into.length;) {
      const position = Math.floor(at / this.chunkBytes)
      const skip = at - position * this.chunkBytes
      const length = Math.min(this.chunkBytes - skip, offset + into.length - at)
      const content = await this.#chunk(position)
      if (content) into.set(content.subarray(skip, skip + length), at - offset)
      else into.fill(0, at - offset, at - offset + length)
      at += length
    }
  }

  /** Nothing for a chunk of zeros. */
  async #chunk(position: number): Promise<Buffer | undefined> {
    const id = await this.#idAt(position)
    if (!id) return undefined
    await this.#ahead?.readNow(position, this.#map.chunks, (next) => this.#idAt(next))
    const { content } = await this.#reader.open.chunks.read(id, kinds.content)
    if (content.length === Math.min(this.chunkBytes, this.sizeBytes - position * this.chunkBytes)) return content
    throw new Fault('damaged', `chunk ${position} of disk ${this.facts.name} has ${content.length} bytes`)
  }

  /** Nothing for a chunk of zeros. */
  async #idAt(position: number): Promise<Buffer | undefined> {
    const ids = await this.#idsIn(Math.floor(position / pieceEntries))
    const at = (position % pieceEntries) * shortIdBytes
    return isZeroId(ids, at) ? undefined : ids.subarray(at, at + shortIdBytes)
  }

  #idsIn(number: number): Promise<Buffer> {
    const known = this.#pieces.get(number)
    // Put last again: the first is the one to go.
    this.#pieces.delete(number)
    const piece = known ?? this.#map.piece(number).then(({ ids }) => ids)
    piece.catch(() => this.#pieces.delete(number))
    this.#pieces.set(number, piece)
    const [oldest] = this.#pieces.keys()
    if (this.#pieces.size > piecesKept && oldest !== undefined) this.#pieces.delete(oldest)
    return piece
  }
}
