/** A disk of a backup, read at any place. */
import { Fault } from '#base/fault.ts'
import type { BackupReader } from './backup-reader.ts'
import { type DiskMap, isZeroId } from './disk-map.ts'
import { kinds, pieceEntries, shortIdBytes } from './format.ts'
import type { ManifestDisk } from './manifest.ts'

export class DiskReader {
  readonly facts: ManifestDisk
  readonly chunkBytes: number
  readonly #reader: BackupReader
  readonly #map: DiskMap

  /** For `BackupReader.openDisk`. */
  constructor(reader: BackupReader, facts: ManifestDisk, map: DiskMap) {
    this.#reader = reader
    this.facts = facts
    this.chunkBytes = reader.chunkBytes
    this.#map = map
  }

  get sizeBytes(): number {
    return this.facts.sizeBytes
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
    const { ids } = await this.#map.piece(Math.floor(position / pieceEntries))
    const at = (position % pieceEntries) * shortIdBytes
    const id = ids.subarray(at, at + shortIdBytes)
    if (isZeroId(id)) return undefined
    const { content } = await this.#reader.open.chunks.read(id, kinds.content)
    if (content.length === Math.min(this.chunkBytes, this.sizeBytes - position * this.chunkBytes)) return content
    throw new Fault('damaged', `chunk ${position} of disk ${this.facts.name} has ${content.length} bytes`)
  }
}
