/**
 * Which pieces the catalogue of a tree has: lists of pieces, and above them lists of those lists, all of them chunks. A path
 * is found by reading one list and one piece, and what did not change between two backups is there already.
 *
 * A list ends behind a piece whose id says so, by chance: a folder more in front does not move all the others.
 */
import { Fault } from '#base/fault.ts'
import { compareKeys, lastWhere, type TreeKey } from './catalogue.ts'
import type { ChunkReader } from '../chunks/chunk-reader.ts'
import type { ChunkWriter } from '../chunks/chunk-writer.ts'
import { idBytes, kinds, shortIdBytes, topListsMaximum } from '../format.ts'
import type { Keyring } from '../keys/keyring.ts'
import { nameMaximumBytes, pathMaximumBytes, readUInt64, writeUInt64 } from './record.ts'

const magic = Buffer.from('HKL2', 'latin1')
const headerBytes = 16
const entryHeadBytes = shortIdBytes + 16
/** A list ends behind one id of so many, or once it has so many bytes. */
const oneOf = 64
const fullBytes = 256 * 1024
/** No list is larger: it was not full before its last entry. */
const listMaximumBytes = fullBytes + entryHeadBytes + pathMaximumBytes + nameMaximumBytes

/** What a list names: a piece, or a list of pieces. */
export interface ListEntry {
  readonly id: Buffer
  /** 1 for a piece. */
  readonly pieces: number
  /** Of the first of them. */
  readonly key: TreeKey
}

/** In the making. */
class ListBuilder {
  #entries: ListEntry[] = []
  #sizeBytes = headerBytes

  add(entry: ListEntry): void {
    this.#entries.push(entry)
    this.#sizeBytes += entryBytes(entry)
  }

  get isFull(): boolean {
    return this.#sizeBytes >= fullBytes
  }

  /** Nothing when there is nothing in it; then it begins anew. */
  take(): { readonly bytes: Buffer; readonly pieces: number; readonly key: TreeKey } | undefined {
    const [first] = this.#entries
    if (first === undefined) return undefined
    const bytes = printList(this.#entries)
    this.#entries = []
    this.#sizeBytes = headerBytes
    return { bytes, pieces: bytes.readUInt32LE(8), key: first.key }
  }
}

function entryBytes({ key: { folder, name } }: ListEntry): number {
  return entryHeadBytes + folder.length + name.length
}

export function printList(entries: readonly ListEntry[]): Buffer {
  const bytes = Buffer.alloc(entries.reduce((sum, entry) => sum + entryBytes(entry), headerBytes))
  magic.copy(bytes)
  bytes.writeUInt32LE(entries.length, 4)
  bytes.writeUInt32LE(
    entries.reduce((sum, { pieces }) => sum + pieces, 0),
    8,
  )
  let at = headerBytes
  for (const { id, pieces, key } of entries) {
    const { folder, name, offset } = key
    id.copy(bytes, at, 0, shortIdBytes)
    bytes.writeUInt32LE(pieces, at + 16)
    writeUInt64(bytes, offset, at + 20)
    bytes.writeUInt16LE(folder.length, at + 28)
    bytes.writeUInt16LE(name.length, at + 30)
    at += entryHeadBytes
    at += bytes.write(folder, at, 'latin1')
    at += bytes.write(name, at, 'latin1')
  }
  return bytes
}

/** @throws Error that says what is wrong */
export function parseList(bytes: Buffer): ListEntry[] {
  const isList = bytes.length >= headerBytes && bytes.length <= listMaximumBytes && bytes.indexOf(magic) === 0
  if (!isList || bytes.readUInt32LE(12) !== 0) throw new Error('it is no list of pieces')
  const entries: ListEntry[] = []
  let [at, pieces] = [headerBytes, 0]
  while (at < bytes.length) {
    if (at + entryHeadBytes > bytes.length) throw new Error('it ends early')
    const [folderBytes, nameBytes] = [bytes.readUInt16LE(at + 28), bytes.readUInt16LE(at + 30)]
    const [folderAt, nameAt] = [at + entryHeadBytes, at + entryHeadBytes + folderBytes]
    const end = nameAt + nameBytes
    if (folderBytes > pathMaximumBytes || nameBytes > nameMaximumBytes || end > bytes.length)
      throw new Error('it ends early')
    const entry: ListEntry = {
      id: bytes.subarray(at, at + shortIdBytes),
      pieces: bytes.readUInt32LE(at + 16),
      key: {
        folder: bytes.toString('latin1', folderAt, nameAt),
        name: bytes.toString('latin1', nameAt, end),
        offset: readUInt64(bytes, at + 20),
      },
    }
    const last = entries.at(-1)
    if (last && compareKeys(last.key, entry.key) >= 0) throw new Error('it is not in order')
    if (entry.pieces === 0) throw new Error('it names what is nothing')
    entries.push(entry)
    pieces += entry.pieces
    at = end
  }
  if (entries.length !== bytes.readUInt32LE(4) || pieces !== bytes.readUInt32LE(8) || entries.length === 0)
    throw new Error('it has another number of entries')
  return entries
}

export interface WrittenList {
  /** Ids of the lists of lists, `idBytes` each. */
  readonly root: readonly Buffer[]
  readonly digest: string
  readonly pieces: number
  readonly storedBytes: number
}

/** Stores the lists of a catalogue in the making. */
export class PieceListWriter {
  readonly #keyring: Keyring
  readonly #chunks: ChunkWriter
  readonly #list = new ListBuilder()
  readonly #top = new ListBuilder()
  readonly #root: Buffer[] = []
  #pieces = 0
  #storedBytes = 0

  constructor(keyring: Keyring, chunks: ChunkWriter) {
    this.#keyring = keyring
    this.#chunks = chunks
  }

  /** @param id of the next piece, `key` its first entry */
  async add(id: Buffer, key: TreeKey): Promise<void> {
    this.#list.add({ id, pieces: 1, key })
    this.#pieces += 1
    if (id.readUInt32LE(0) % oneOf === 0 || this.#list.isFull) await this.#endList()
  }

  async finish(): Promise<WrittenList> {
    await this.#endList()
    await this.#endTop()
    const root = Buffer.concat(this.#root)
    const digest = this.#keyring.digestOf(this.#pieces, root).toString('hex')
    return { root: this.#root, digest, pieces: this.#pieces, storedBytes: this.#storedBytes }
  }

  async #endList(): Promise<void> {
    const list = this.#list.take()
    if (list === undefined) return
    const { pieces, key } = list
    this.#top.add({ id: await this.#put(list.bytes), pieces, key })
    if (this.#top.isFull) await this.#endTop()
  }

  async #endTop(): Promise<void> {
    const top = this.#top.take()
    if (top === undefined) return
    if (this.#root.length >= topListsMaximum) throw new Fault('too-large', 'the tree has too many entries')
    this.#root.push(await this.#put(top.bytes))
  }

  async #put(bytes: Buffer): Promise<Buffer> {
    const id = this.#keyring.idOf(kinds.tree, bytes)
    this.#storedBytes += await this.#chunks.put(id, kinds.tree, bytes)
    return id
  }
}

/** A list, proven and sound. @throws Fault `damaged` */
export async function readList(chunks: ChunkReader, id: Buffer): Promise<ListEntry[]> {
  const chunk = await chunks.read(id, kinds.tree)
  chunks.check(id, chunk)
  try {
    return parseList(chunk.content)
  } catch (cause) {
    const how = cause instanceof Error ? cause.message : String(cause)
    throw new Fault('damaged', `list ${id.toString('hex', 0, shortIdBytes)} of a tree is damaged: ${how}`, { cause })
  }
}

interface List extends ListEntry {
  /** Number of its first piece. */
  readonly firstPiece: number
}

/** The piece at hand: its place in the order, and what the list says of it. */
export interface ListedPiece extends ListEntry {
  readonly number: number
}

/** Stored lists: those of lists are held, and of the others the last one read. */
export class PieceList {
  readonly pieces: number
  readonly #chunks: ChunkReader
  readonly #lists: readonly List[]
  #held: { readonly list: List; readonly entries: Promise<ListEntry[]> } | undefined

  private constructor(chunks: ChunkReader, lists: readonly List[]) {
    this.#chunks = chunks
    this.#lists = lists
    const last = lists.at(-1)
    this.pieces = last ? last.firstPiece + last.pieces : 0
  }

  /** @param digest that of the manifest. @throws Fault `damaged` */
  static async open(chunks: ChunkReader, root: readonly Buffer[], digest: string): Promise<PieceList> {
    const lists: List[] = []
    let firstPiece = 0
    for (const id of root) {
      for (const entry of await readList(chunks, id)) {
        requireOrder(lists.at(-1)?.key, entry.key)
        lists.push({ ...entry, firstPiece })
        firstPiece += entry.pieces
      }
    }
    if (chunks.keyring.digestOf(firstPiece, Buffer.concat(root)).toString('hex') !== digest) {
      throw new Fault('damaged', 'the lists of a tree are those of another one')
    }
    return new PieceList(chunks, lists)
  }

  /** Nothing behind the last one. */
  async pieceAt(number: number): Promise<ListedPiece | undefined> {
    const list = this.#lists[lastWhere(this.#lists, ({ firstPiece }) => firstPiece <= number)]
    if (list === undefined) return undefined
    const entry = (await this.#entriesOf(list))[number - list.firstPiece]
    return entry && { ...entry, number }
  }

  /** The piece in which an entry of this key must stand, if there is one. */
  async find(key: TreeKey): Promise<ListedPiece | undefined> {
    const list = this.#lists[lastWhere(this.#lists, (one) => compareKeys(one.key, key) <= 0)]
    if (list === undefined) return undefined
    const entries = await this.#entriesOf(list)
    const at = lastWhere(entries, (entry) => compareKeys(entry.key, key) <= 0)
    const entry = entries[at]
    return entry && { ...entry, number: list.firstPiece + at }
  }

  #entriesOf(list: List): Promise<ListEntry[]> {
    if (this.#held?.list !== list) {
      const entries = this.#read(list)
      this.#held = { list, entries }
      entries.catch(() => (this.#held = undefined))
    }
    return this.#held.entries
  }

  async #read(list: List): Promise<ListEntry[]> {
    const entries = await readList(this.#chunks, list.id)
    const isSound = entries.length === list.pieces && entries.every(({ pieces }) => pieces === 1)
    const next = this.#lists[lastWhere(this.#lists, ({ firstPiece }) => firstPiece <= list.firstPiece) + 1]
    const [first, last] = [entries[0], entries.at(-1)]
    if (!isSound || !first || !last || compareKeys(first.key, list.key) !== 0) {
      throw new Fault('damaged', `list ${list.id.toString('hex')} of a tree is another one`)
    }
    if (next) requireOrder(last.key, next.key)
    return entries
  }
}

function requireOrder(key: TreeKey | undefined, next: TreeKey): void {
  if (key && compareKeys(key, next) >= 0) throw new Fault('damaged', 'the lists of a tree are not in order')
}

/** Of an id in JSON. */
export function rootOf(ids: readonly string[]): Buffer[] {
  return ids.map((id) => Buffer.from(id, 'hex').subarray(0, idBytes))
}
