/**
 * The file of a tree in a backup: which pieces its catalogue consists of, in order, and where they and the chunks they
 * name lie in packs.
 *
 * Pieces are described in segments, each compressed by itself; a directory at the end says for each segment with which
 * entry it begins, so that a path is found by reading one segment and one piece. Writer and reader hold one segment in
 * memory, and the directory: 100 bytes for some ten thousand entries.
 */
import { crc32, zstdDecompressSync } from 'node:zlib'
import { type FileHandle, open } from 'node:fs/promises'
import { KiB, MiB } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import { asDigest, type Digest } from '#base/ids.ts'
import { asFileFault } from '#host/files.ts'
import { blobHeaderBytes, blobMaximumBytes } from './blob.ts'
import { digestBytes, digestOf } from './digest.ts'
import { packMaximumBytes, packsMaximum, pieceFormV1, treeFileMaximumBytes } from './format.ts'
import { readAt } from './read-at.ts'
import { compareKeys, damagedTree, lastWhere, type TreeKey } from '#datastore/tree/catalogue.ts'
import { pieceChunksMaximum } from '#datastore/tree/piece.ts'
import { nameMaximumBytes, pathMaximumBytes, readUInt64 } from '#datastore/tree/record.ts'

const treeVersion = 1
const chunksMaximum = pieceChunksMaximum(pieceFormV1)
const headerBytes = 16
const footerBytes = 56
const magic = Buffer.from('HAKOTREE', 'latin1')
const endMagic = Buffer.from('HAKOTEND', 'latin1')
const segmentPieces = 64
const segmentTargetBytes = 256 * KiB
const locationBytes = 12
const pieceHeadBytes = digestBytes + locationBytes + 16
const directoryHeadBytes = 36
const tailMaximumBytes = 128 * MiB

/** Where a blob lies. */
export interface Place {
  readonly pack: Digest
  readonly offset: number
  readonly length: number
}

/** A piece as the tree's file tells of it. */
export interface PieceEntry extends Place {
  /** Among all pieces of the tree. */
  readonly number: number
  readonly key: TreeKey
  readonly digest: Buffer
  readonly chunks: number
  /** Of the chunk with this number in the piece. */
  readonly placeOf: (chunk: number) => Place
}

interface Segment {
  readonly offset: number
  readonly length: number
  readonly check: number
  readonly plainBytes: number
  readonly pieces: number
  /** Number of its first piece. */
  readonly firstPiece: number
  readonly key: TreeKey
}

export class TreeFileReader implements AsyncDisposable {
  /** Names of all packs this tree needs. */
  readonly packs: readonly Digest[]
  /** Of the catalogue. */
  readonly pieces: number
  readonly #segments: readonly Segment[]
  readonly #handle: FileHandle
  readonly #name: string
  #cached: { readonly segment: number; readonly entries: Promise<PieceEntry[]> } | undefined

  private constructor(handle: FileHandle, name: string, { packs, segments }: Tail) {
    this.#handle = handle
    this.#name = name
    this.packs = packs
    this.#segments = segments
    const last = segments.at(-1)
    this.pieces = last ? last.firstPiece + last.pieces : 0
  }

  /** @throws Fault `damaged` naming the file; `missing` when there is none */
  static async open(path: string, name: string): Promise<TreeFileReader> {
    let handle: FileHandle
    try {
      handle = await open(path, 'r')
    } catch (cause) {
      throw asFileFault(cause, path)
    }
    try {
      return new TreeFileReader(handle, name, await readTail(handle, name))
    } catch (cause) {
      await handle.close()
      throw cause instanceof Fault ? cause : damagedTree(name, 'it cannot be read', cause)
    }
  }

  /** Nothing behind the last one. */
  async pieceAt(number: number): Promise<PieceEntry | undefined> {
    const at = lastWhere(this.#segments, ({ firstPiece }) => firstPiece <= number)
    const segment = this.#segments[at]
    return segment && (await this.#entriesOf(at, segment))[number - segment.firstPiece]
  }

  /** The piece in which an entry of this key must stand, if there is one. */
  async find(key: TreeKey): Promise<PieceEntry | undefined> {
    const at = lastWhere(this.#segments, (segment) => compareKeys(segment.key, key) <= 0)
    const segment = this.#segments[at]
    if (segment === undefined) return undefined
    const entries = await this.#entriesOf(at, segment)
    return entries[lastWhere(entries, (entry) => compareKeys(entry.key, key) <= 0)]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close()
  }

  #entriesOf(number: number, segment: Segment): Promise<PieceEntry[]> {
    if (this.#cached?.segment !== number) {
      const entries = this.#read(segment)
      this.#cached = { segment: number, entries }
      entries.catch(() => (this.#cached = undefined))
    }
    return this.#cached.entries
  }

  async #read(segment: Segment): Promise<PieceEntry[]> {
    try {
      const packed = await readAt(this.#handle, segment.offset, segment.length)
      if (crc32(packed) !== segment.check) throw new Error('its checksum does not match')
      const plain = zstdDecompressSync(packed, { maxOutputLength: segment.plainBytes })
      return this.#parse(plain, segment)
    } catch (cause) {
      throw damagedTree(this.#name, `the segment at ${segment.offset} cannot be read`, cause)
    }
  }

  #parse(plain: Buffer, segment: Segment): PieceEntry[] {
    const entries: PieceEntry[] = []
    let at = 0
    for (let number = 0; number < segment.pieces; number += 1) {
      if (at + pieceHeadBytes > plain.length) throw new Error('it ends early')
      const start = at
      const chunks = plain.readUInt32LE(at + digestBytes + 12)
      const key = this.#keyAt(plain, at + digestBytes + 16, at + digestBytes + 20, at + pieceHeadBytes)
      const chunksAt = at + pieceHeadBytes + key.folder.length + key.name.length
      at = chunksAt + chunks * locationBytes
      if (chunks > chunksMaximum || at > plain.length) throw new Error('it ends early')
      entries.push({
        ...this.#placeAt(plain, start + digestBytes),
        number: segment.firstPiece + number,
        key,
        digest: plain.subarray(start, start + digestBytes),
        chunks,
        placeOf: (chunk) => this.#placeAt(plain, chunksAt + chunk * locationBytes),
      })
    }
    if (at !== plain.length || entries.some(({ key }, number) => number > 0 && !isAfter(key, entries[number - 1]?.key)))
      throw new Error('its pieces are not in order')
    return entries
  }

  #keyAt(plain: Buffer, lengthsAt: number, offsetAt: number, textAt: number): TreeKey {
    const key = keyAt(plain, lengthsAt, offsetAt, textAt)
    if (key === undefined) throw new Error('it ends early')
    return key
  }

  #placeAt(plain: Buffer, at: number): Place {
    const [offset, length] = [plain.readUInt32LE(at + 4), plain.readUInt32LE(at + 8)]
    const pack = this.packs[plain.readUInt32LE(at)]
    const isThere = length >= blobHeaderBytes && length <= blobMaximumBytes && offset + length <= packMaximumBytes
    if (pack === undefined || !isThere) throw damagedTree(this.#name, 'a chunk lies where no chunk can be')
    return { pack, offset, length }
  }
}

function keyAt(bytes: Buffer, lengthsAt: number, offsetAt: number, textAt: number): TreeKey | undefined {
  const [folderBytes, nameBytes] = [bytes.readUInt16LE(lengthsAt), bytes.readUInt16LE(lengthsAt + 2)]
  if (folderBytes > pathMaximumBytes || nameBytes > nameMaximumBytes) return undefined
  if (textAt + folderBytes + nameBytes > bytes.length) return undefined
  return {
    folder: bytes.toString('latin1', textAt, textAt + folderBytes),
    name: bytes.toString('latin1', textAt + folderBytes, textAt + folderBytes + nameBytes),
    offset: readUInt64(bytes, offsetAt),
  }
}

function isAfter(key: TreeKey, other: TreeKey | undefined): boolean {
  return other === undefined || compareKeys(other, key) < 0
}

interface Tail {
  readonly packs: readonly Digest[]
  readonly segments: readonly Segment[]
}

async function readTail(handle: FileHandle, name: string): Promise<Tail> {
  const { size } = await handle.stat()
  if (size < headerBytes + footerBytes || size > treeFileMaximumBytes) {
    throw damagedTree(name, `it is ${size} bytes long`)
  }
  const header = await readAt(handle, 0, headerBytes)
  const footer = await readAt(handle, size - footerBytes, footerBytes)
  if (!header.subarray(0, 8).equals(magic) || !footer.subarray(48).equals(endMagic)) {
    throw damagedTree(name, 'it is no tree')
  }
  if (header.readUInt32LE(8) !== treeVersion || header.readUInt32LE(12) !== 0)
    throw damagedTree(name, 'its header is wrong')
  const [tailAt, packCount, count] = [readUInt64(footer, 0), footer.readUInt32LE(8), footer.readUInt32LE(12)]
  const tailBytes = size - footerBytes - tailAt
  const isThere = tailAt >= headerBytes && tailBytes >= packCount * digestBytes && tailBytes <= tailMaximumBytes
  if (!isThere || packCount > packsMaximum) throw damagedTree(name, 'its end does not fit its length')
  const tail = await readAt(handle, tailAt, tailBytes)
  if (!digestOf(tail).equals(footer.subarray(16, 48))) {
    throw damagedTree(name, 'the digest of its directory does not match')
  }
  const packs: Digest[] = []
  for (let at = 0; at < packCount; at += 1) packs.push(asDigest(tail.toString('hex', at * 32, at * 32 + 32)))
  return { packs, segments: parseDirectory(tail.subarray(packCount * digestBytes), { count, tailAt, name }) }
}

function parseDirectory(
  directory: Buffer,
  { count, tailAt, name }: { readonly count: number; readonly tailAt: number; readonly name: string },
): Segment[] {
  const segments: Segment[] = []
  let [at, firstPiece] = [0, 0]
  while (at < directory.length) {
    const key =
      at + directoryHeadBytes <= directory.length && keyAt(directory, at + 32, at + 24, at + directoryHeadBytes)
    if (!key) throw damagedTree(name, 'its directory ends early')
    const segment: Segment = {
      offset: readUInt64(directory, at),
      length: directory.readUInt32LE(at + 8),
      check: directory.readUInt32LE(at + 12),
      plainBytes: directory.readUInt32LE(at + 16),
      pieces: directory.readUInt32LE(at + 20),
      firstPiece,
      key,
    }
    const isSound =
      segment.offset >= headerBytes &&
      segment.offset + segment.length <= tailAt &&
      segment.plainBytes <= 2 * segmentTargetBytes &&
      segment.pieces >= 1 &&
      segment.pieces <= segmentPieces
    if (!isSound || !isAfter(key, segments.at(-1)?.key)) throw damagedTree(name, 'its directory is not sound')
    segments.push(segment)
    firstPiece += segment.pieces
    at += directoryHeadBytes + key.folder.length + key.name.length
  }
  if (segments.length !== count) throw damagedTree(name, 'its directory has another length')
  return segments
}
