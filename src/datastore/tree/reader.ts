/**
 * Reads a tree of a backup: its entries in order, one of them, or its content. Every piece of the catalogue and every
 * chunk is proven first, and every sum in them against what there can be.
 *
 * A path is text in which each character is a byte (`bytesOf`, `textOf`); it has no slash in front, and the root is ''.
 * Memory holds a few pieces and chunks, however large the tree.
 */
import { Fault, isFault, missing } from '#base/fault.ts'
import { type Attribute, attributesMaximumBytes, parseAttributes } from '#host/files/attribute-calls.ts'
import { codeOf } from '#host/files.ts'
import { type Catalogue, compareKeys, damagedTree, type OpenPiece, type TreeFacts } from './catalogue.ts'
import { Piece } from './piece.ts'
import type { ReadEntry } from './read-tree.ts'
import {
  below,
  type EntryKind,
  type EntryRecord,
  type Extent,
  extentsAt,
  folderAt,
  folderKey,
  kindAt,
  nameAt,
  readUInt64,
  timeAt,
} from './record.ts'

const [openPieces, openChunks] = [8, 32]

export interface TreeEntry extends ReadEntry {
  /** For `content` and `attributes`. */
  readonly place: EntryPlace
}

export interface EntryPlace {
  readonly piece: OpenPiece
  readonly at: number
}

/** A backup that has trees. */
export interface TreeHolder {
  /** @throws Fault `missing` */
  tree: (name: string) => TreeReader
}

export interface ContentRange {
  readonly offset: number
  readonly length: number
}

/** A run of content; between them lie holes. */
export interface ContentPart {
  readonly offset: number
  readonly bytes: Buffer
}

export class TreeReader {
  readonly facts: TreeFacts
  readonly #catalogue: Catalogue
  readonly #pieces = new Map<number, Promise<OpenPiece>>()
  readonly #chunks = new Map<string, Promise<Buffer>>()

  constructor(facts: TreeFacts, catalogue: Catalogue) {
    this.facts = facts
    this.#catalogue = catalogue
  }

  /** For faults: `tree rootfs of backup ct/100/…`. */
  get name(): string {
    return this.#catalogue.name
  }

  /**
   * The entry at a path and everything below it. Folder by folder: a folder's entries by name, then the folders among
   * them, each with all that is in it. A folder stands before what is in it, a file before its further names.
   */
  async *entries(path = ''): AsyncGenerator<TreeEntry> {
    const first = await this.entry(path)
    yield first
    if (first.kind !== 'directory') return
    for await (const entry of this.#after({ folder: path, name: '' })) {
      if (!isWithin(entry, path)) return
      if (entry.path !== path) yield entry
    }
  }

  /** @throws Fault `missing`, `damaged` */
  async entry(path: string): Promise<TreeEntry> {
    const slash = path.lastIndexOf('/')
    const [folder, name] = [slash < 0 ? '' : path.slice(0, slash), path.slice(slash + 1)]
    const start = await this.#catalogue.find({ folder, name, offset: 0 })
    const open = start && (await this.openPiece(start.number))
    if (open) {
      for (const { entry } of entriesOf(open)) if (entry.path === path) return entry
    }
    throw missing(`entry of ${this.name}`, textOf(path))
  }

  /** What is in a folder, by name. @throws Fault `missing`, `invalid` when it is no folder */
  async *list(path: string): AsyncGenerator<TreeEntry> {
    const folder = await this.entry(path)
    if (folder.kind !== 'directory') throw new Fault('invalid', `'${textOf(path)}' is no folder in ${this.name}`)
    for await (const entry of this.#after({ folder: path, name: '' })) {
      if (folderOf(entry) !== path) return
      if (entry.path !== path) yield entry
    }
  }

  /**
   * A file's content, zeros for its holes. Of a further name that of the first.
   * @throws Fault `damaged` naming the chunk, `invalid` for what has no content, or a range outside of it
   */
  async *content(entry: TreeEntry, range?: ContentRange): AsyncGenerator<Buffer> {
    const file = entry.kind === 'hard link' ? await this.entry(entry.target ?? '') : entry
    if (file.kind !== 'file') throw new Fault('invalid', `'${textOf(entry.path)}' has no content: it is a ${file.kind}`)
    const { offset, length } = range ?? { offset: 0, length: file.sizeBytes }
    if (offset < 0 || length < 0 || offset + length > file.sizeBytes) {
      throw new Fault('invalid', `${length} bytes at ${offset} are outside of '${textOf(entry.path)}'`)
    }
    const end = offset + length
    let at = offset
    for await (const part of this.parts(file, { offset, length })) {
      yield* zerosOf(part.offset - at)
      yield part.bytes
      at = part.offset + part.bytes.length
    }
    yield* zerosOf(end - at)
  }

  /** A file's content without its holes, in order. */
  async *parts(entry: TreeEntry, { offset, length }: ContentRange = wholeOf(entry)): AsyncGenerator<ContentPart> {
    const end = offset + length
    for await (const { open, extents } of this.#extents(entry, offset)) {
      for (const extent of extents) {
        if (extent.offset >= end) return
        const [from, to] = [Math.max(offset, extent.offset), Math.min(end, extent.offset + extent.length)]
        if (from >= to) continue
        const chunk = await this.#chunk(open, extent)
        yield {
          offset: from,
          bytes: chunk.subarray(extent.skip + from - extent.offset, extent.skip + to - extent.offset),
        }
      }
    }
  }

  /** Where a file has content, in order, without reading it. */
  async *ranges(entry: TreeEntry): AsyncGenerator<ContentRange> {
    for await (const { extents } of this.#extents(entry, 0)) yield* extents
  }

  /** Extended attributes, access lists and capabilities among them, with ids as inside. @throws Fault `damaged` */
  async attributes({ place: { piece: open, at }, path }: TreeEntry): Promise<Attribute[]> {
    const { bytes } = open.piece
    let run = open.piece.record(at).attributes
    const next = at + bytes.readUInt32LE(at)
    if (next < bytes.length && kindAt(bytes, next) === 'attributes') {
      const { identity, extents } = open.piece.record(next)
      if (readUInt64(identity, 0) > attributesMaximumBytes) throw this.#damaged(path, 'its attributes are too large')
      const parts: Buffer[] = []
      for (const extent of extents) {
        const chunk = await this.#chunk(open, extent)
        parts.push(chunk.subarray(extent.skip, extent.skip + extent.length))
      }
      run = Buffer.concat(parts)
      if (run.length !== readUInt64(identity, 0)) throw this.#damaged(path, 'its attributes have another length')
    }
    const attributes = parseAttributes(run)
    if (attributes === undefined) throw this.#damaged(path, 'its attributes cannot be read')
    return attributes
  }

  /** All pieces of the catalogue in order, for whoever goes through it by itself. One that is damaged is told of. */
  async *pieces(onDamage: (fault: Fault) => void): AsyncGenerator<OpenPiece> {
    for (let number = 0; number < this.#catalogue.pieces; number += 1) {
      try {
        yield await this.#read(number)
      } catch (cause) {
        if (!isFault(cause, 'damaged') && codeOf(cause) !== 'EIO') throw cause
        onDamage(
          isFault(cause) ? cause : damagedTree(this.name, `piece ${number} of the catalogue cannot be read`, cause),
        )
      }
    }
  }

  /** Sees whether these are the pieces the manifest tells of. @throws Fault `damaged` */
  requireDigest(): Promise<void> {
    return this.#catalogue.check()
  }

  /** Entries from a key on, up to the end. Their order is checked across pieces, too. */
  async *#after(key: { readonly folder: string; readonly name: string }): AsyncGenerator<TreeEntry> {
    const start = await this.#catalogue.find({ ...key, offset: 0 })
    let last: { folder: string; name: string; offset: number } | undefined
    for (let number = start?.number ?? 0; number < this.#catalogue.pieces; number += 1) {
      for (const { folder, entry } of entriesOf(await this.openPiece(number))) {
        const here = { folder, name: entry.name, offset: 0 }
        if (last && compareKeys(last, here) >= 0) throw this.#damaged(entry.path, 'the catalogue is not in order')
        last = here
        if (compareKeys(here, { ...key, offset: 0 }) >= 0) yield entry
      }
    }
  }

  /** The records that say where content lies, from the one in which `offset` is. */
  async *#extents(
    { path, place: { piece, at } }: TreeEntry,
    offset: number,
  ): AsyncGenerator<{ readonly open: OpenPiece; readonly extents: readonly Extent[] }> {
    const folder = path.includes('/') ? path.slice(0, path.lastIndexOf('/')) : ''
    const name = nameAt(piece.piece.bytes, at)
    yield { open: piece, extents: extentsAt(piece.piece.bytes, at) }
    // A piece that begins in the middle of the content, before the offset, spares the way there.
    const ahead = await this.#catalogue.find({ folder, name, offset })
    const isAhead = ahead && ahead.number > piece.entry.number && ahead.key.offset > 0
    let number = isAhead ? ahead.number : piece.entry.number
    let from = isAhead ? undefined : at + piece.piece.bytes.readUInt32LE(at)
    for (; number < this.#catalogue.pieces; number += 1) {
      const open = number === piece.entry.number ? piece : await this.openPiece(number)
      const { bytes } = open.piece
      if (from === undefined) {
        if (folderAt(bytes, 0) !== folder) return
        from = bytes.readUInt32LE(0)
      }
      for (; from < bytes.length; from += bytes.readUInt32LE(from)) {
        const kind = kindAt(bytes, from)
        if (kind === 'attributes') continue
        if (kind !== 'more' || nameAt(bytes, from) !== name) return
        yield { open, extents: extentsAt(bytes, from) }
      }
      from = undefined
    }
  }

  /** A piece by its number, kept for a while. */
  openPiece(number: number): Promise<OpenPiece> {
    return kept(this.#pieces, number, openPieces, () => this.#read(number))
  }

  async #read(number: number): Promise<OpenPiece> {
    const entry = await this.#catalogue.pieceAt(number)
    if (entry === undefined) throw damagedTree(this.name, `it has no piece ${number}`)
    const plain = await this.#catalogue.read(entry)
    try {
      const piece = Piece.parse(plain, this.#catalogue.form)
      const first = firstKeyOf(piece)
      if (first === undefined || compareKeys(first, entry.key) !== 0) throw new Error('it is another one')
      if (number === 0 && (first.folder !== '' || first.name !== '')) throw new Error('it has no root')
      return { entry, piece }
    } catch (cause) {
      const how = cause instanceof Error ? cause.message : String(cause)
      throw damagedTree(this.name, `piece ${number} of the catalogue cannot be read: ${how}`, cause)
    }
  }

  async #chunk(open: OpenPiece, { chunk, skip, length }: Extent): Promise<Buffer> {
    const key = open.piece.idOf(chunk).toString('latin1')
    const bytes = await kept(this.#chunks, key, openChunks, () => this.#catalogue.chunk(open, chunk))
    if (skip + length > bytes.length) throw damagedTree(this.name, 'content lies behind the end of its chunk')
    return bytes
  }

  #damaged(path: string, how: string): Fault {
    return damagedTree(this.name, `'${textOf(path)}': ${how}`)
  }
}

/** A few answers, the one asked for least recently goes. */
function kept<Key, Value>(
  cache: Map<Key, Promise<Value>>,
  key: Key,
  most: number,
  make: () => Promise<Value>,
): Promise<Value> {
  const value = cache.get(key) ?? make()
  value.catch(() => cache.delete(key))
  cache.delete(key)
  cache.set(key, value)
  for (const oldest of cache.keys()) {
    if (cache.size <= most) break
    cache.delete(oldest)
  }
  return value
}

function firstKeyOf({ bytes }: Piece): { folder: string; name: string; offset: number } | undefined {
  const at = bytes.readUInt32LE(0)
  if (at >= bytes.length) return undefined
  const first = kindAt(bytes, at) === 'more' ? extentsAt(bytes, at)[0] : undefined
  return { folder: folderAt(bytes, 0), name: nameAt(bytes, at), offset: first?.offset ?? 0 }
}

/** Without what merely belongs to an entry. */
export function* entriesOf(open: OpenPiece): Generator<{ readonly folder: string; readonly entry: TreeEntry }> {
  let folder = ''
  for (const { kind, at } of open.piece.records()) {
    if (kind === 'folder') folder = folderAt(open.piece.bytes, at)
    else if (kind !== 'more' && kind !== 'attributes') yield { folder, entry: entryOf(folder, open, at, kind) }
  }
}

export function entryOf(folder: string, open: OpenPiece, at: number, kind: EntryKind): TreeEntry {
  const record: EntryRecord = open.piece.record(at)
  const isLink = kind === 'symbolic link' || kind === 'hard link'
  const isDevice = kind === 'character device' || kind === 'block device'
  const device = Buffer.from(record.target, 'latin1')
  return {
    path: record.name === '' ? '' : below(folder, record.name),
    name: record.name,
    kind,
    mode: record.mode,
    uid: record.uid,
    gid: record.gid,
    sizeBytes: readUInt64(record.identity, 0),
    modified: timeAt(record.identity, 8),
    ...(isLink ? { target: record.target } : {}),
    ...(isDevice ? { device: { major: device.readUInt32LE(0), minor: device.readUInt32LE(4) } } : {}),
    place: { piece: open, at },
  }
}

function folderOf({ path }: TreeEntry): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')))
}

function isWithin(entry: TreeEntry, folder: string): boolean {
  return folder === '' || entry.path === folder || folderKey(entry.path).startsWith(`${folderKey(folder)}\0`)
}

function wholeOf({ sizeBytes }: TreeEntry): ContentRange {
  return { offset: 0, length: sizeBytes }
}

const zeros = Buffer.alloc(65_536)

function* zerosOf(length: number): Generator<Buffer> {
  for (let left = length; left > 0; left -= zeros.length) yield zeros.subarray(0, Math.min(left, zeros.length))
}

/** A path as bytes, of one people write; without slashes around it. */
export function bytesOf(text: string): string {
  return Buffer.from(text)
    .toString('latin1')
    .replace(/^\/+|\/+$/g, '')
}

/** A path or name as people read it. */
export function textOf(path: string): string {
  return Buffer.from(path, 'latin1').toString()
}
