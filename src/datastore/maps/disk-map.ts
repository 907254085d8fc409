/**
 * The map of a disk: for each chunk its id, in pieces that are chunks themselves, so that what did not change costs
 * nothing. Where little of a piece changed, only that is stored.
 */
import { isZero } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import { letGo } from '#base/let-go.ts'
import type { ChunkReader } from '../chunks/chunk-reader.ts'
import type { ChunkWriter } from '../chunks/chunk-writer.ts'
import {
  coding,
  deltaDepthMaximum,
  deltaFlag,
  kinds,
  pieceBytes,
  pieceEntries,
  rootEntries,
  shortIdBytes,
} from '../format.ts'
import type { Keyring } from '../keys/keyring.ts'
import type { ReadPiece } from '../chunks/recent-pieces.ts'

export const zeroId: Buffer = Buffer.alloc(shortIdBytes)
const deltaHeaderBytes = shortIdBytes + 4
export const deltaEntryBytes = 2 + shortIdBytes
/** A delta that is not a good deal smaller than the piece is not worth following. */
const deltaMaximumBytes = pieceBytes / 3

const rootChunkBytes = rootEntries * shortIdBytes

function rootBytes(chunks: number): number {
  return Math.ceil(chunks / pieceEntries) * shortIdBytes
}

/** @param at where in a list of ids */
export function isZeroId(ids: Buffer, at = 0): boolean {
  // Of millions of holes each is asked for: a call out of JavaScript for each would take most of the time.
  return (
    ids.readInt32LE(at) === 0 &&
    ids.readInt32LE(at + 4) === 0 &&
    ids.readInt32LE(at + 8) === 0 &&
    ids.readInt32LE(at + 12) === 0
  )
}

/** A map that is stored. */
export class DiskMap {
  readonly chunks: number
  /** Ids of all pieces, one after another. */
  readonly root: Buffer
  readonly #reader: ChunkReader
  #held: { readonly piece: number; readonly ids: Buffer; readonly depth: number } | undefined

  private constructor(reader: ChunkReader, chunks: number, root: Buffer) {
    this.#reader = reader
    this.chunks = chunks
    this.root = root
  }

  /** @throws Fault `damaged` */
  static async open(reader: ChunkReader, chunks: number, rootChunks: readonly Buffer[]): Promise<DiskMap> {
    // Before any is read: a few bytes of a manifest may name the same large chunk over and over.
    if (rootChunks.length !== Math.ceil(rootBytes(chunks) / rootChunkBytes)) {
      throw new Fault('damaged', `the map of a disk has a root of ${rootChunks.length} chunks for ${chunks} chunks`)
    }
    const parts: Buffer[] = []
    for (const id of rootChunks) {
      const chunk = await reader.read(id, kinds.map)
      reader.check(id, chunk)
      parts.push(chunk.content)
    }
    const root = Buffer.concat(parts)
    for (const part of parts) letGo(part)
    if (root.length !== rootBytes(chunks)) {
      throw new Fault('damaged', `the map of a disk has ${root.length / shortIdBytes} pieces for ${chunks} chunks`)
    }
    return new DiskMap(reader, chunks, root)
  }

  pieceId(piece: number): Buffer {
    return this.root.subarray(piece * shortIdBytes, (piece + 1) * shortIdBytes)
  }

  get pieces(): number {
    return this.root.length / shortIdBytes
  }

  /** Ids of the chunks of a piece, and how many deltas it is made of. The last piece looked at is kept. */
  async piece(piece: number): Promise<ReadPiece> {
    if (this.#held?.piece === piece) return this.#held
    const count = Math.min(pieceEntries, this.chunks - piece * pieceEntries)
    const id = this.pieceId(piece)
    const found = isZeroId(id)
      ? { ids: Buffer.alloc(count * shortIdBytes), depth: 0 }
      : await readPiece(this.#reader, id, count)
    this.#held = { piece, ...found }
    return this.#held
  }

  /** 16 bytes. Of one position after another, or a piece is read again and again. */
  async idAt(position: number): Promise<Buffer> {
    const { ids } = await this.piece(Math.floor(position / pieceEntries))
    const at = (position % pieceEntries) * shortIdBytes
    return ids.subarray(at, at + shortIdBytes)
  }

  /** Every chunk that is not zero, in order. */
  async *entries(): AsyncGenerator<{ readonly position: number; readonly id: Buffer }> {
    for (let piece = 0; piece < this.pieces; piece += 1) {
      if (isZeroId(this.pieceId(piece))) continue
      const { ids } = await this.piece(piece)
      for (let at = 0; at < ids.length; at += shortIdBytes) {
        if (isZeroId(ids, at)) continue
        yield { position: piece * pieceEntries + at / shortIdBytes, id: ids.subarray(at, at + shortIdBytes) }
      }
    }
  }
}

/** @throws Fault `damaged` when what it comes to is not what its id was made of */
async function readPiece(reader: ChunkReader, id: Buffer, count: number): Promise<ReadPiece> {
  const known = reader.pieces.get(id)
  if (known?.ids.length === count * shortIdBytes) return known
  const { ids, depth } = await resolve(reader, id, count, deltaDepthMaximum)
  if (!reader.keyring.isIdOf(id.subarray(0, shortIdBytes), kinds.map, ids)) {
    throw new Fault('damaged', `piece ${id.toString('hex')} of a map does not come to its id`)
  }
  reader.pieces.add(id, { ids, depth })
  return { ids, depth }
}

async function resolve(reader: ChunkReader, id: Buffer, count: number, deltasLeft: number): Promise<ReadPiece> {
  const stored = await storedPiece(reader, id, count)
  if ('ids' in stored) return { ids: stored.ids, depth: 0 }
  if (deltasLeft === 0) throw damagedPiece(id, 'it is made of too many deltas')
  const known = reader.pieces.get(stored.base)
  const isFit = known?.ids.length === count * shortIdBytes
  const base = isFit ? known : await resolve(reader, stored.base, count, deltasLeft - 1)
  const ids = Buffer.from(base.ids)
  const { changes } = stored
  for (let at = 0; at < changes.length; at += deltaEntryBytes) {
    changes.copy(ids, changes.readUInt16LE(at) * shortIdBytes, at + 2, at + deltaEntryBytes)
  }
  return { ids, depth: base.depth + 1 }
}

/** A piece as it is stored: all its ids, or what it changes about another piece. */
export type StoredPiece = { readonly ids: Buffer } | Delta

interface Delta {
  readonly base: Buffer
  /** `deltaEntryBytes` each: a position, and the id there. */
  readonly changes: Buffer
}

/** @param count of chunks in it. @throws Fault `damaged` */
export async function storedPiece(reader: ChunkReader, id: Buffer, count: number): Promise<StoredPiece> {
  const { content, flags } = await reader.read(id, kinds.map)
  if ((flags & deltaFlag) === 0) {
    if (content.length !== count * shortIdBytes) throw damagedPiece(id, `it has ${content.length} bytes`)
    return { ids: content }
  }
  const changes = content.subarray(deltaHeaderBytes)
  if (content.length < deltaHeaderBytes || changes.length % deltaEntryBytes !== 0)
    throw damagedPiece(id, 'it is no delta')
  for (let at = 0; at < changes.length; at += deltaEntryBytes) {
    if (changes.readUInt16LE(at) >= count) throw damagedPiece(id, 'it changes what is not there')
  }
  return { base: content.subarray(0, shortIdBytes), changes }
}

export function damagedPiece(id: Buffer, how: string): Fault {
  return new Fault('damaged', `piece ${id.toString('hex', 0, shortIdBytes)} of a map is damaged: ${how}`)
}

/** Ids of the chunks the stored form of a piece refers to besides those in it: what it is a delta of, and that one of. */
export async function* basesOf(reader: ChunkReader, id: Buffer): AsyncGenerator<Buffer> {
  let at = id
  for (let depth = 0; depth <= deltaDepthMaximum; depth += 1) {
    const { content, flags } = await reader.read(at, kinds.map)
    if ((flags & deltaFlag) === 0) return
    at = Buffer.from(content.subarray(0, shortIdBytes))
    yield at
  }
}

/** What a manifest says of a map. */
export interface MapRoot {
  /** Ids of its pieces, one after another. */
  readonly root: Buffer
  /** The chunks those are stored in. */
  readonly chunks: readonly Buffer[]
}

/** What only saves work is done without where it cannot be read. */
export async function unlessDamaged<T>(wanted: Promise<T>): Promise<T | undefined> {
  return wanted.catch((fault: unknown) => {
    if (fault instanceof Fault) return undefined
    throw fault
  })
}

/** Where two lists of as many ids differ, in order. Little of a piece changes: halves that are the same are one comparison. */
function differences(ids: Buffer, others: Buffer, from = 0, to = ids.length, found: number[] = []): number[] {
  if (ids.compare(others, from, to, from, to) === 0) return found
  if (to - from <= shortIdBytes) {
    found.push(from)
    return found
  }
  const middle = from + Math.ceil((to - from) / shortIdBytes / 2) * shortIdBytes
  differences(ids, others, from, middle, found)
  return differences(ids, others, middle, to, found)
}

/** Writes the map of a disk, piece by piece from its start. */
export class MapWriter {
  readonly #keyring: Keyring
  readonly #chunks: ChunkWriter
  readonly #count: number
  readonly #before: DiskMap | undefined
  readonly #keeps: boolean
  readonly #root: Buffer
  #piece = -1
  #ids: Buffer = Buffer.alloc(0)

  /**
   * @param before of the last backup of the disk, or of the one it is built upon
   * @param keeps what is not set stays as it was before, and costs nothing; else it is zero
   */
  constructor(keyring: Keyring, chunks: ChunkWriter, count: number, before?: DiskMap, keeps = false) {
    this.#keyring = keyring
    this.#chunks = chunks
    this.#count = count
    this.#before = before
    this.#keeps = keeps
    this.#root = before && keeps ? Buffer.from(before.root) : Buffer.alloc(rootBytes(count))
  }

  /** Positions only go up. @returns how many chunks more are not zero: 1, 0 or -1 */
  async set(position: number, id: Buffer): Promise<number> {
    await this.#turnTo(Math.floor(position / pieceEntries))
    const at = (position % pieceEntries) * shortIdBytes
    const was = isZeroId(this.#ids, at) ? 0 : 1
    id.copy(this.#ids, at, 0, shortIdBytes)
    return (isZeroId(id) ? 0 : 1) - was
  }

  async #turnTo(piece: number): Promise<void> {
    if (piece === this.#piece) return
    await this.#end()
    this.#piece = piece
    const bytes = Math.min(pieceEntries, this.#count - piece * pieceEntries) * shortIdBytes
    this.#ids = this.#before && this.#keeps ? Buffer.from((await this.#before.piece(piece)).ids) : Buffer.alloc(bytes)
  }

  async #end(): Promise<void> {
    if (this.#piece < 0) return
    const ids = this.#ids
    const id = isZero(ids) ? zeroId : this.#keyring.idOf(kinds.map, ids)
    id.copy(this.#root, this.#piece * shortIdBytes, 0, shortIdBytes)
    if (id === zeroId || (await this.#chunks.has(id))) return
    const delta = await this.#deltaOf(ids)
    if (delta) await this.#chunks.store(id, delta, delta.length, coding.raw | (kinds.map << 4) | deltaFlag)
    // Ids look like chance: there is nothing to compress, but for runs of zeros.
    else await this.#chunks.put(id, kinds.map, ids)
  }

  async #deltaOf(ids: Buffer): Promise<Buffer | undefined> {
    const before = this.#before
    if (!before || this.#piece >= before.pieces) return undefined
    const base = before.pieceId(this.#piece)
    if (isZeroId(base) || !(await this.#chunks.has(base))) return undefined
    const old = await unlessDamaged(before.piece(this.#piece))
    if (!old || old.ids.length !== ids.length || old.depth >= deltaDepthMaximum) return undefined
    const entries: Buffer[] = []
    const header = Buffer.alloc(deltaHeaderBytes)
    base.copy(header)
    header.writeUInt32LE(old.depth + 1, shortIdBytes)
    for (const at of differences(ids, old.ids)) {
      if ((entries.length + 1) * deltaEntryBytes > deltaMaximumBytes) return undefined
      const entry = Buffer.allocUnsafe(deltaEntryBytes)
      entry.writeUInt16LE(at / shortIdBytes)
      ids.copy(entry, 2, at, at + shortIdBytes)
      entries.push(entry)
    }
    return Buffer.concat([header, ...entries])
  }

  async finish(): Promise<MapRoot> {
    await this.#end()
    const chunks: Buffer[] = []
    for (let at = 0; at < this.#root.length; at += rootChunkBytes) {
      const part = this.#root.subarray(at, at + rootChunkBytes)
      const id = this.#keyring.idOf(kinds.map, part)
      await this.#chunks.put(id, kinds.map, part)
      chunks.push(id)
    }
    return { root: this.#root, chunks }
  }
}
