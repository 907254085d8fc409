/**
 * A piece of the catalogue: the entries of one folder, of several small ones, or of a part of a large one.
 *
 * A piece is stored as a chunk is, named by its bytes, so a folder in which nothing has changed costs nothing in the
 * next backup. It names the chunks with the content of its entries; *where* they lie is said elsewhere, because that
 * changes.
 *
 * Where a piece ends depends on what is in it alone, so the same folders give the same pieces.
 */
import { KiB } from '#base/bytes.ts'
import { shortIdBytes } from '../format.ts'
import {
  type EntryRecord,
  extentBytes,
  extentsFrom,
  folderAt,
  folderHeadBytes,
  folderKey,
  kindAt,
  nameAt,
  readRecord,
  recordBytes,
  type RecordKind,
  wrongWith,
  writeFolder,
  writeRecord,
} from './record.ts'

/** How pieces name chunks. */
export interface PieceForm {
  readonly magic: number
  readonly idBytes: number
}

export const pieceForm: PieceForm = { magic: 0x32_54_4b_48, idBytes: shortIdBytes } // "HKT2"

export const pieceHeaderBytes = 16
export const pieceMaximumBytes = 128 * KiB
/** A piece ends before the next record once it is so large, and after a folder once it is so large. */
const fullBytes = 48 * KiB
const folderEndBytes = 16 * KiB
/** Each needs an extent that refers to it. */
export function pieceChunksMaximum({ idBytes }: PieceForm): number {
  return Math.floor((pieceMaximumBytes - pieceHeaderBytes) / (idBytes + extentBytes))
}

export class PieceBuilder {
  readonly #records = Buffer.allocUnsafe(pieceMaximumBytes)
  #end = 0
  #chunks: (Buffer | undefined)[] = []

  get sizeBytes(): number {
    return pieceHeaderBytes + this.#chunks.length * pieceForm.idBytes + this.#end
  }

  get isEmpty(): boolean {
    return this.#end === 0
  }

  /** To be asked before each record. */
  get isFull(): boolean {
    return this.sizeBytes >= fullBytes
  }

  /** To be asked after each folder. */
  get endsWithFolder(): boolean {
    return this.sizeBytes >= folderEndBytes
  }

  get chunks(): number {
    return this.#chunks.length
  }

  /** Number of a chunk that is known, or will be before the piece is. */
  addChunk(id?: Buffer): number {
    return this.#chunks.push(id) - 1
  }

  setChunk(number: number, id: Buffer): void {
    this.#chunks[number] = id
  }

  addFolder(path: string): void {
    if (this.sizeBytes + folderHeadBytes + path.length > pieceMaximumBytes) throw new Error('the piece is too large')
    this.#end = writeFolder(this.#records, this.#end, path)
  }

  addRecord(record: EntryRecord): void {
    if (this.sizeBytes + recordBytes(record) > pieceMaximumBytes) throw new Error('the piece is too large')
    this.#end = writeRecord(this.#records, this.#end, record)
  }

  /** Takes a record of another piece; `chunkOf` says which chunk here is which there. */
  copyRecord(
    from: Buffer,
    start: number,
    owner: { uid: number; gid: number },
    chunkOf: (chunk: number) => number,
  ): void {
    const length = from.readUInt32LE(start)
    const to = this.#end
    if (this.sizeBytes + length > pieceMaximumBytes) throw new Error('the piece is too large')
    from.copy(this.#records, to, start, start + length)
    this.#records.writeUInt32LE(owner.uid, to + 8)
    this.#records.writeUInt32LE(owner.gid, to + 12)
    for (let place = extentsFrom(this.#records, to) + 8; place < to + length; place += extentBytes) {
      this.#records.writeUInt32LE(chunkOf(this.#records.readUInt32LE(place)), place)
    }
    this.#end = to + length
  }

  /** The piece; then it begins anew. */
  take(): Buffer {
    const ids = this.#chunks.map((id) => {
      if (id === undefined) throw new Error('a chunk of the piece is not known yet')
      return id.subarray(0, pieceForm.idBytes)
    })
    const bytes = printPiece(ids, this.#records.subarray(0, this.#end))
    this.#end = 0
    this.#chunks = []
    return bytes
  }
}

/** A piece as it is stored: what it names, and its records. */
export function printPiece(ids: readonly Buffer[], records: Buffer): Buffer {
  const header = Buffer.alloc(pieceHeaderBytes)
  header.writeUInt32LE(pieceForm.magic, 0)
  header.writeUInt32LE(ids.length, 4)
  header.writeUInt32LE(records.length, 8)
  return Buffer.concat([header, ...ids, records])
}

/** Ids of the chunks a piece names, one after another. @throws Error that says what is wrong */
export function pieceIds(plain: Buffer, { magic, idBytes }: PieceForm): Buffer {
  const isPiece = plain.length >= pieceHeaderBytes && plain.length <= pieceMaximumBytes
  if (!isPiece || plain.readUInt32LE(0) !== magic || plain.readUInt32LE(12) !== 0) {
    throw new Error('it is no piece of a catalogue')
  }
  const [chunks, length] = [plain.readUInt32LE(4), plain.readUInt32LE(8)]
  const recordsAt = pieceHeaderBytes + chunks * idBytes
  if (recordsAt + length !== plain.length) throw new Error('it has another length')
  return plain.subarray(pieceHeaderBytes, recordsAt)
}

/** A piece read back: sound in itself. */
export class Piece {
  /** The records alone. */
  readonly bytes: Buffer
  readonly chunks: number
  readonly #ids: Buffer
  readonly #idBytes: number

  private constructor(bytes: Buffer, ids: Buffer, idBytes: number) {
    this.bytes = bytes
    this.#ids = ids
    this.#idBytes = idBytes
    this.chunks = ids.length / idBytes
  }

  /** @throws Error that says what is wrong */
  static parse(plain: Buffer, form: PieceForm): Piece {
    const ids = pieceIds(plain, form)
    const piece = new Piece(plain.subarray(pieceHeaderBytes + ids.length), ids, form.idBytes)
    piece.#check()
    return piece
  }

  idOf(chunk: number): Buffer {
    return this.#ids.subarray(chunk * this.#idBytes, (chunk + 1) * this.#idBytes)
  }

  /** Where records stand, in order. */
  *records(): Generator<{ readonly kind: RecordKind; readonly at: number }> {
    for (let at = 0; at < this.bytes.length; at += this.bytes.readUInt32LE(at)) {
      // Checked when it was parsed.
      yield { kind: kindAt(this.bytes, at) as RecordKind, at }
    }
  }

  record(at: number): EntryRecord {
    return readRecord(this.bytes, at)
  }

  /** Names in order, so that none is there twice; whatever adds to an entry stands behind it. */
  #check(): void {
    if (this.bytes.length === 0 || kindAt(this.bytes, 0) !== 'folder') throw new Error('it begins in no folder')
    let [folder, name]: [string, string | undefined] = ['', undefined]
    for (let at = 0; at < this.bytes.length; at += this.bytes.readUInt32LE(at)) {
      const wrong = wrongWith(this.bytes, at, this.chunks)
      if (wrong !== undefined) throw new Error(wrong)
      const kind = kindAt(this.bytes, at)
      if (kind === 'folder') {
        const path = folderAt(this.bytes, at)
        if (at > 0 && folderKey(path) <= folderKey(folder)) throw new Error('its folders are not in order')
        ;[folder, name] = [path, undefined]
        continue
      }
      const next = nameAt(this.bytes, at)
      if (next === '' && folder !== '') throw new Error('an entry has no name')
      const belongs = kind === 'more' || kind === 'attributes'
      // A piece may begin with what belongs to the entry at the end of the one before.
      const isInOrder = belongs ? name === undefined || next === name : name === undefined || next > name
      if (!isInOrder) throw new Error('its entries are not in order')
      name = next
    }
  }
}
