/** A tree of a backup of version 1: its file says which pieces the catalogue has and where everything lies. */
import { createHash } from 'node:crypto'
import { isFault } from '#base/fault.ts'
import { printBackupId } from '#datastore/backup-id.ts'
import { type Catalogue, damagedTree, type OpenPiece, type PieceEntry as AnyEntry } from '#datastore/tree/catalogue.ts'
import { pieceFormV1 } from './format.ts'
import type { StoredChunk } from './index-file.ts'
import type { ManifestTree } from './manifest.ts'
import type { BackupReader } from './reader.ts'
import { type PieceEntry, TreeFileReader } from './tree-file.ts'

export class StoredTree implements Catalogue {
  readonly name: string
  readonly form = pieceFormV1
  readonly #reader: BackupReader
  readonly #facts: ManifestTree
  readonly #file: TreeFileReader

  private constructor(reader: BackupReader, facts: ManifestTree, file: TreeFileReader, name: string) {
    this.#reader = reader
    this.#facts = facts
    this.#file = file
    this.name = name
  }

  /** For `BackupReader.open`. */
  static async open(reader: BackupReader, facts: ManifestTree): Promise<StoredTree> {
    const name = `tree ${facts.name} of backup ${printBackupId(reader.id)}`
    try {
      const file = await TreeFileReader.open(reader.layout.tree(reader.id, facts.name), name)
      if (file.pieces === facts.pieces) return new StoredTree(reader, facts, file, name)
      await file[Symbol.asyncDispose]()
      throw damagedTree(name, 'it describes another tree')
    } catch (cause) {
      throw isFault(cause, 'missing') ? damagedTree(name, 'it is gone', cause) : cause
    }
  }

  get pieces(): number {
    return this.#file.pieces
  }

  readonly pieceAt = (number: number) => this.#file.pieceAt(number)
  readonly find: Catalogue['find'] = (key) => this.#file.find(key)

  readonly read = async (entry: AnyEntry): Promise<Buffer> => this.#reader.chunk(await this.placesOf(entry))

  readonly chunk = async (open: OpenPiece, chunk: number): Promise<Buffer> =>
    this.#reader.chunk(await this.placed(open, chunk))

  async placed({ entry, piece }: OpenPiece, chunk: number): Promise<StoredChunk> {
    const places = await this.placesOf(entry)
    if (piece.chunks !== places.chunks) throw damagedTree(this.name, `piece ${entry.number} is another one`)
    return { ...places.placeOf(chunk), digest: piece.idOf(chunk) }
  }

  async placesOf({ number }: AnyEntry): Promise<PieceEntry> {
    const entry = await this.#file.pieceAt(number)
    if (entry === undefined) throw damagedTree(this.name, `it has no piece ${number}`)
    return entry
  }

  readonly check = async (): Promise<void> => {
    const hash = createHash('sha256')
    for (let number = 0; number < this.#file.pieces; number += 1) {
      hash.update((await this.#file.pieceAt(number))?.digest ?? '')
    }
    if (hash.digest('hex') !== this.#facts.digest) throw damagedTree(this.name, 'it has the pieces of another tree')
  }

  async close(): Promise<void> {
    await this.#file[Symbol.asyncDispose]()
  }
}
