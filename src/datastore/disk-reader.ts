/** A disk of a backup, read at any place: only the chunks that are asked for, and the pieces of the map that name them. */
import { Fault } from '#base/fault.ts'
import type { BackupReader } from './backup-reader.ts'
import type { Extent } from './block-source.ts'
import { type DiskMap, isZeroId } from './disk-map.ts'
import { kinds, pieceEntries, shortIdBytes } from './format.ts'
import type { ServedSource } from './served-disk.ts'

/** Each 64 KiB, for 512 MiB of the disk. */
const piecesKept = 64

/** @throws Fault `missing` when the backup has no such disk, `damaged` when its map is */
export async function diskOf(reader: BackupReader, name: string): Promise<ServedSource> {
  const { sizeBytes } = reader.disk(name)
  return new DiskReader(reader, await reader.mapOf(name), sizeBytes)
}

class DiskReader implements ServedSource {
  readonly sizeBytes: number
  readonly #reader: BackupReader
  readonly #map: DiskMap
  readonly #pieces = new Map<number, Promise<Buffer>>()

  constructor(reader: BackupReader, map: DiskMap, sizeBytes: number) {
    this.#reader = reader
    this.#map = map
    this.sizeBytes = sizeBytes
  }

  async *extents(): AsyncGenerator<Extent> {
    const { chunkBytes } = this.#reader
    let [from, to] = [0, 0] // of the data not yet reported
    for await (const { position } of this.#map.entries()) {
      const offset = position * chunkBytes
      if (offset > to) {
        if (to > from) yield { offset: from, length: to - from, isZero: false }
        yield { offset: to, length: offset - to, isZero: true }
        from = offset
      }
      to = Math.min(this.sizeBytes, offset + chunkBytes)
    }
    if (to > from) yield { offset: from, length: to - from, isZero: false }
    if (this.sizeBytes > to) yield { offset: to, length: this.sizeBytes - to, isZero: true }
  }

  /** @throws Fault `damaged` naming the chunk, `invalid` outside the disk */
  async read(offset: number, into: Uint8Array): Promise<void> {
    const { chunkBytes } = this.#reader
    if (offset < 0 || offset + into.length > this.sizeBytes) {
      throw new Fault('invalid', `${into.length} bytes at ${offset} are outside of the disk`)
    }
    for (let at = 0; at < into.length;) {
      const position = Math.floor((offset + at) / chunkBytes)
      const skip = offset + at - position * chunkBytes
      const length = Math.min(chunkBytes - skip, into.length - at)
      const content = await this.#chunk(position)
      if (content) into.set(content.subarray(skip, skip + length), at)
      else into.fill(0, at, at + length)
      at += length
    }
  }

  /** Nothing for zeros. */
  async #chunk(position: number): Promise<Buffer | undefined> {
    const ids = await this.#idsAround(position)
    const at = (position % pieceEntries) * shortIdBytes
    const id = ids.subarray(at, at + shortIdBytes)
    if (isZeroId(id)) return undefined
    const { content } = await this.#reader.open.chunks.read(id, kinds.content)
    const { chunkBytes } = this.#reader
    if (content.length === Math.min(chunkBytes, this.sizeBytes - position * chunkBytes)) return content
    throw new Fault('damaged', `chunk ${position} of the disk has ${content.length} bytes`)
  }

  #idsAround(position: number): Promise<Buffer> {
    const number = Math.floor(position / pieceEntries)
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
