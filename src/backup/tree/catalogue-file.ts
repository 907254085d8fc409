/**
 * The catalogue of a first pass, in a file beside the backup being made: what the pass under freeze goes by. Read once,
 * by whoever wrote it, and thrown away; it says where chunks lie by the writer's own numbers of packs.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { asFileFault } from '#host/files.ts'
import { readAt } from '../pack.ts'
import type { BasePiece } from '#datastore/tree/base.ts'
import { Piece } from '#datastore/tree/piece.ts'
import { pieceFormV1 } from '../format.ts'
import type { PlacedChunk } from './stored-tree.ts'

const [headBytes, locationBytes] = [8, 12]

export class CatalogueFile implements AsyncDisposable {
  readonly #handle: FileHandle
  readonly #path: string
  #sizeBytes = 0

  private constructor(handle: FileHandle, path: string) {
    this.#handle = handle
    this.#path = path
  }

  static async create(path: string): Promise<CatalogueFile> {
    try {
      return new CatalogueFile(await open(path, 'wx+', 0o600), path)
    } catch (cause) {
      throw asFileFault(cause, path)
    }
  }

  async add(bytes: Buffer, chunks: readonly PlacedChunk[]): Promise<void> {
    const head = Buffer.alloc(headBytes + chunks.length * locationBytes)
    head.writeUInt32LE(bytes.length, 0)
    head.writeUInt32LE(chunks.length, 4)
    for (const [number, { location }] of chunks.entries()) {
      const at = headBytes + number * locationBytes
      head.writeUInt32LE(location.pack, at)
      head.writeUInt32LE(location.offset, at + 4)
      head.writeUInt32LE(location.length, at + 8)
    }
    const all = Buffer.concat([head, bytes])
    try {
      await this.#handle.appendFile(all)
    } catch (cause) {
      throw asFileFault(cause, this.#path)
    }
    this.#sizeBytes += all.length
  }

  async *pieces(): AsyncGenerator<BasePiece<PlacedChunk>> {
    for (let at = 0; at < this.#sizeBytes;) {
      const head = await readAt(this.#handle, at, headBytes)
      const [length, chunks] = [head.readUInt32LE(0), head.readUInt32LE(4)]
      const all = await readAt(this.#handle, at + headBytes, chunks * locationBytes + length)
      at += headBytes + all.length
      const piece = Piece.parse(all.subarray(chunks * locationBytes), pieceFormV1)
      const chunk = (number: number): PlacedChunk => {
        const at = number * locationBytes
        const [pack, offset, size] = [all.readUInt32LE(at), all.readUInt32LE(at + 4), all.readUInt32LE(at + 8)]
        return { id: piece.idOf(number), location: { pack, offset, length: size } }
      }
      yield { piece, chunk }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close()
  }
}
