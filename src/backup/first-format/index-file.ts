/**
 * The index of a disk: for each chunk of it the digest and where its blob lies.
 *
 * Kept in pieces of 4,096 chunks (512 MiB of disk), each compressed by itself; a piece that is all zeros
 * takes no room but a directory entry, so a big empty disk costs nothing. Writer and reader hold one
 * piece in memory at a time. The digest stands here *and* with the blob: what a restore returns is
 * checked against the index, the index against the manifest.
 */
import { crc32, zstdDecompressSync } from 'node:zlib'
import { type FileHandle, open } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import { asDigest, type Digest } from '#base/ids.ts'
import { asFileFault } from '#host/files.ts'
import { blobHeaderBytes, blobMaximumBytes } from './blob.ts'
import { digestBytes, digestOf } from './digest.ts'
import {
  chunkBytes,
  diskMaximumBytes,
  formatVersion,
  indexMaximumBytes,
  packMaximumBytes,
  packsMaximum,
  pieceChunks,
  pieceEntryBytes,
} from './format.ts'
import { readAt } from './read-at.ts'

const headerBytes = 32
const footerBytes = 56
const directoryEntryBytes = 16
const magic = Buffer.from('HAKOINDX', 'latin1')
const endMagic = Buffer.from('HAKOIEND', 'latin1')

/** Columns of a piece, in bytes from its start, for `count` chunks. */
const columns = (count: number) => ({ pack: count * 32, offset: count * 36, length: count * 40 })

export function chunksOf(sizeBytes: number): number {
  return Math.ceil(sizeBytes / chunkBytes)
}

/** A chunk and where its blob lies. */
export interface StoredChunk {
  readonly digest: Buffer
  readonly pack: Digest
  readonly offset: number
  readonly length: number
}

/** A chunk of a disk that is not zero. */
export interface IndexEntry extends StoredChunk {
  /** Offset on the disk divided by the chunk size. */
  readonly position: number
}

export class IndexReader implements AsyncDisposable {
  readonly sizeBytes: number
  /** Names of all packs this disk needs. */
  readonly packs: readonly Digest[]
  readonly #handle: FileHandle
  readonly #name: string
  readonly #directory: Buffer
  #cached: { readonly piece: number; readonly entries: Promise<Map<number, IndexEntry>> } | undefined

  private constructor(handle: FileHandle, name: string, tail: Tail) {
    this.#handle = handle
    this.#name = name
    this.sizeBytes = tail.sizeBytes
    this.packs = tail.packs
    this.#directory = tail.directory
  }

  /** @throws Fault `damaged` naming the file; `missing` when there is none */
  static async open(path: string, name: string): Promise<IndexReader> {
    let handle: FileHandle
    try {
      handle = await open(path, 'r')
    } catch (cause) {
      throw asFileFault(cause, path)
    }
    try {
      return new IndexReader(handle, name, await readTail(handle, name))
    } catch (cause) {
      await handle.close()
      throw cause instanceof Fault ? cause : damagedIndex(name, 'it cannot be read', cause)
    }
  }

  /** All chunks that are not zero, in the order of the disk. */
  async *entries(): AsyncGenerator<IndexEntry> {
    for (let piece = 0; piece < this.#directory.length / directoryEntryBytes; piece += 1) yield* await this.#read(piece)
  }

  /** The chunk at a position, or nothing when it is zero. Neighbouring questions read their piece once. */
  async entryAt(position: number): Promise<IndexEntry | undefined> {
    const piece = Math.floor(position / pieceChunks)
    if (this.#cached?.piece !== piece) {
      const read = this.#read(piece).then((entries) => new Map(entries.map((entry) => [entry.position, entry])))
      this.#cached = { piece, entries: read }
      read.catch(() => (this.#cached = undefined))
    }
    return (await this.#cached.entries).get(position)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close()
  }

  async #read(piece: number): Promise<IndexEntry[]> {
    const at = piece * directoryEntryBytes
    const length = this.#directory.readUInt32LE(at + 8)
    if (length === 0) return []
    const count = Math.min(pieceChunks, chunksOf(this.sizeBytes) - piece * pieceChunks)
    try {
      const packed = await readAt(this.#handle, Number(this.#directory.readBigUInt64LE(at)), length)
      if (crc32(packed) !== this.#directory.readUInt32LE(at + 12)) throw new Error('its checksum does not match')
      const plain = zstdDecompressSync(packed, { maxOutputLength: count * pieceEntryBytes })
      if (plain.length !== count * pieceEntryBytes) throw new Error('it has another length')
      return this.#parse(plain, piece * pieceChunks, count)
    } catch (cause) {
      throw damagedIndex(this.#name, `piece ${piece} cannot be read`, cause)
    }
  }

  #parse(plain: Buffer, first: number, count: number): IndexEntry[] {
    const [column, entries]: [ReturnType<typeof columns>, IndexEntry[]] = [columns(count), []]
    for (let at = 0; at < count; at += 1) {
      const length = plain.readUInt32LE(column.length + at * 4)
      if (length === 0) continue
      const offset = plain.readUInt32LE(column.offset + at * 4)
      const pack = this.packs[plain.readUInt32LE(column.pack + at * 4)]
      if (
        pack === undefined ||
        length < blobHeaderBytes ||
        length > blobMaximumBytes ||
        offset + length > packMaximumBytes
      ) {
        throw new Error(`chunk ${first + at} lies where no chunk can be`)
      }
      const digest = plain.subarray(at * digestBytes, (at + 1) * digestBytes)
      entries.push({ position: first + at, digest, pack, offset, length })
    }
    return entries
  }
}

interface Tail {
  readonly sizeBytes: number
  readonly packs: readonly Digest[]
  readonly directory: Buffer
}

async function readTail(handle: FileHandle, name: string): Promise<Tail> {
  const { size } = await handle.stat()
  if (size < headerBytes + footerBytes || size > indexMaximumBytes) throw damagedIndex(name, `it is ${size} bytes long`)
  const header = await readAt(handle, 0, headerBytes)
  const footer = await readAt(handle, size - footerBytes, footerBytes)
  const sizeBytes = Number(header.readBigUInt64LE(16))
  if (!header.subarray(0, 8).equals(magic) || !footer.subarray(48).equals(endMagic))
    throw damagedIndex(name, 'it is no index')
  const isOurs = header.readUInt32LE(8) === formatVersion && header.readUInt32LE(12) === chunkBytes
  if (
    !isOurs ||
    header.readUInt32LE(24) !== pieceChunks ||
    header.readUInt32LE(28) !== 0 ||
    sizeBytes > diskMaximumBytes
  ) {
    throw damagedIndex(name, 'its header is wrong')
  }
  const [tailAt, packCount, pieces] = [
    Number(footer.readBigUInt64LE(0)),
    footer.readUInt32LE(8),
    footer.readUInt32LE(12),
  ]
  const tailBytes = packCount * digestBytes + pieces * directoryEntryBytes
  const isWhole = tailAt >= headerBytes && tailAt + tailBytes + footerBytes === size
  if (!isWhole || packCount > packsMaximum || pieces !== Math.ceil(chunksOf(sizeBytes) / pieceChunks)) {
    throw damagedIndex(name, 'its end does not fit its length')
  }
  const tail = await readAt(handle, tailAt, tailBytes)
  if (!digestOf(tail).equals(footer.subarray(16, 48)))
    throw damagedIndex(name, 'the digest of its directory does not match')
  const packs: Digest[] = []
  for (let at = 0; at < packCount; at += 1) packs.push(asDigest(tail.toString('hex', at * 32, at * 32 + 32)))
  return { sizeBytes, packs, directory: tail.subarray(packCount * digestBytes) }
}

function damagedIndex(name: string, how: string, cause?: unknown): Fault {
  return new Fault('damaged', `${name} is damaged: ${how}`, { cause })
}
