/**
 * One entry of a tree as bytes, as it stands in a piece of the catalogue. `docs/formats/datastore-v2.md` describes each
 * of them.
 *
 * A fixed head, then name, target, attributes and where the content lies. Facts that only pass through (times, inode)
 * stay bytes from the kernel's answer to the kernel's call. A path is text in which each character is a byte.
 */
import { chunkSizes } from '../format.ts'

export type EntryKind =
  | 'file'
  | 'directory'
  | 'symbolic link'
  | 'hard link'
  | 'pipe'
  | 'socket'
  | 'character device'
  | 'block device'

/** `folder`: what follows is in this folder. `attributes`, `more`: belong to the entry before. */
export type RecordKind = EntryKind | 'folder' | 'attributes' | 'more'

/** One letter for each kind of entry: in records, and as PVE's API tells the kind. */
export const entryLetters: Readonly<Record<EntryKind, string>> = {
  file: 'f',
  directory: 'd',
  'symbolic link': 'l',
  'hard link': 'h',
  pipe: 'p',
  socket: 's',
  'character device': 'c',
  'block device': 'b',
}

const letters: Readonly<Record<RecordKind, string>> = {
  ...entryLetters,
  folder: 'D',
  attributes: '@',
  more: '+',
}
const codes = Object.fromEntries(
  Object.entries(letters).map(([kind, letter]) => [kind, letter.charCodeAt(0)]),
) as Readonly<Record<RecordKind, number>>
const kinds: readonly (RecordKind | undefined)[] = Array.from({ length: 256 }, (_, code) =>
  (Object.keys(codes) as RecordKind[]).find((kind) => codes[kind] === code),
)

/** Where things are in the head. */
export const at = {
  length: 0,
  kind: 4,
  nameBytes: 5,
  mode: 6,
  uid: 8,
  gid: 12,
  /** From here to `targetBytes`: what tells whether a file has changed, see `identityBytes`. */
  size: 16,
  modified: 24,
  changed: 36,
  inode: 48,
  targetBytes: 56,
  extents: 58,
  attributeBytes: 60,
} as const
export const headBytes = 64
export const folderHeadBytes = 8
/** Size, both times and inode: equal when nothing has changed since. */
export const identityBytes = 40
export const extentBytes = 20

export const nameMaximumBytes = 255
/** Of a link; of the first name of a file with several. */
export const targetMaximumBytes = 16_384
export const pathMaximumBytes = 16_384
/** Larger ones stand by themselves, as content does. */
export const inlineAttributesBytes = 4_096
/** In one record; further ones follow as `more`. */
export const extentsMaximum = 512
/** Of a chunk, whatever this datastore cuts into. */
const contentMaximumBytes = chunkSizes[2]

/** Where a range of a file's content lies. */
export interface Extent {
  /** In the file. */
  readonly offset: number
  /** Number of the chunk in its piece. */
  readonly chunk: number
  /** In the chunk. */
  readonly skip: number
  readonly length: number
}

export interface EntryRecord {
  readonly kind: Exclude<RecordKind, 'folder'>
  readonly name: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** `identityBytes` long. */
  readonly identity: Buffer
  /** Of a link; of a device 8 bytes, major and minor. */
  readonly target: string
  readonly attributes: Buffer
  readonly extents: readonly Extent[]
}

export function recordBytes({ name, target, attributes, extents }: EntryRecord): number {
  return headBytes + name.length + target.length + attributes.length + extents.length * extentBytes
}

/** Writes the record and returns where it ends. */
export function writeRecord(into: Buffer, from: number, record: EntryRecord): number {
  const { kind, name, mode, uid, gid, identity, target, attributes, extents } = record
  const length = recordBytes(record)
  into.writeUInt32LE(length, from)
  into.writeUInt8(codes[kind], from + at.kind)
  into.writeUInt8(name.length, from + at.nameBytes)
  into.writeUInt16LE(mode, from + at.mode)
  into.writeUInt32LE(uid, from + at.uid)
  into.writeUInt32LE(gid, from + at.gid)
  identity.copy(into, from + at.size)
  into.writeUInt16LE(target.length, from + at.targetBytes)
  into.writeUInt16LE(extents.length, from + at.extents)
  into.writeUInt32LE(attributes.length, from + at.attributeBytes)
  let to = from + headBytes
  to += into.write(name, to, 'latin1')
  to += into.write(target, to, 'latin1')
  to += attributes.copy(into, to)
  for (const { offset, chunk, skip, length: bytes } of extents) {
    writeUInt64(into, offset, to)
    into.writeUInt32LE(chunk, to + 8)
    into.writeUInt32LE(skip, to + 12)
    into.writeUInt32LE(bytes, to + 16)
    to += extentBytes
  }
  return to
}

export function writeFolder(into: Buffer, from: number, path: string): number {
  into.writeUInt32LE(folderHeadBytes + path.length, from)
  into.writeUInt32LE(codes.folder, from + at.kind)
  return from + folderHeadBytes + into.write(path, from + folderHeadBytes, 'latin1')
}

/** Nothing for a letter that is none. */
export function kindAt(bytes: Buffer, from: number): RecordKind | undefined {
  return kinds[bytes.readUInt8(from + at.kind)]
}

export function folderAt(bytes: Buffer, from: number): string {
  return bytes.toString('latin1', from + folderHeadBytes, from + bytes.readUInt32LE(from))
}

export function nameAt(bytes: Buffer, from: number): string {
  return bytes.toString('latin1', from + headBytes, from + headBytes + bytes.readUInt8(from + at.nameBytes))
}

/** A record that was checked. Its parts are views of the bytes. */
export function readRecord(bytes: Buffer, from: number): EntryRecord {
  const name = nameAt(bytes, from)
  const targetAt = from + headBytes + name.length
  const attributesAt = targetAt + bytes.readUInt16LE(from + at.targetBytes)
  const attributesEnd = attributesAt + bytes.readUInt32LE(from + at.attributeBytes)
  return {
    // Checked, and no folder.
    kind: kindAt(bytes, from) as EntryRecord['kind'],
    name,
    mode: bytes.readUInt16LE(from + at.mode),
    uid: bytes.readUInt32LE(from + at.uid),
    gid: bytes.readUInt32LE(from + at.gid),
    identity: bytes.subarray(from + at.size, from + at.size + identityBytes),
    target: bytes.toString('latin1', targetAt, attributesAt),
    attributes: bytes.subarray(attributesAt, attributesEnd),
    extents: extentsAt(bytes, from),
  }
}

export function extentsAt(bytes: Buffer, from: number): Extent[] {
  const extents: Extent[] = []
  const end = from + bytes.readUInt32LE(from)
  for (let place = extentsFrom(bytes, from); place < end; place += extentBytes) {
    extents.push({
      offset: readUInt64(bytes, place),
      chunk: bytes.readUInt32LE(place + 8),
      skip: bytes.readUInt32LE(place + 12),
      length: bytes.readUInt32LE(place + 16),
    })
  }
  return extents
}

/** Where the first extent of a record stands. */
export function extentsFrom(bytes: Buffer, from: number): number {
  return from + bytes.readUInt32LE(from) - bytes.readUInt16LE(from + at.extents) * extentBytes
}

/**
 * What is wrong with the record, if anything.
 * @param chunks of the piece
 */
export function wrongWith(bytes: Buffer, from: number, chunks: number): string | undefined {
  const left = bytes.length - from
  if (left < folderHeadBytes) return 'it ends in the middle of a record'
  const length = bytes.readUInt32LE(from)
  const kind = kindAt(bytes, from)
  if (kind === undefined || length > left) return 'a record is none'
  if (kind === 'folder') return isSoundFolder(bytes, from, length) ? undefined : 'a folder has no sound path'
  if (length < headBytes) return 'a record is too short'
  const [nameBytes, targetBytes] = [bytes.readUInt8(from + at.nameBytes), bytes.readUInt16LE(from + at.targetBytes)]
  const [extents, attributeBytes] = [
    bytes.readUInt16LE(from + at.extents),
    bytes.readUInt32LE(from + at.attributeBytes),
  ]
  const sum = headBytes + nameBytes + targetBytes + attributeBytes + extents * extentBytes
  if (sum !== length || extents > extentsMaximum || targetBytes > targetMaximumBytes)
    return 'a record has another length'
  if (!isSoundName(bytes, from + headBytes, nameBytes, kind)) return 'an entry has no sound name'
  if (!hasSoundTarget(kind, bytes, from + headBytes + nameBytes, targetBytes)) return 'an entry has no sound target'
  if (extents > 0 && !areSound(bytes, from, chunks, kind)) return 'the content of an entry lies where none can be'
  return bytes.readUInt16LE(from + at.mode) <= 0o7777 ? undefined : 'an entry has no sound mode'
}

function isSoundFolder(bytes: Buffer, from: number, length: number): boolean {
  if (length < folderHeadBytes || length > folderHeadBytes + pathMaximumBytes) return false
  const path = bytes.toString('latin1', from + folderHeadBytes, from + length)
  return path === '' || isSoundPath(path)
}

/** Names one below the other, none of which leads anywhere else. */
export function isSoundPath(path: string): boolean {
  return (
    path.length <= pathMaximumBytes &&
    path.split('/').every((name) => isPlainName(name) && name.length <= nameMaximumBytes && !name.includes('\0'))
  )
}

function isPlainName(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..'
}

const [slash, dot] = [0x2f, 0x2e]

function isSoundName(bytes: Buffer, from: number, length: number, kind: RecordKind): boolean {
  // The root of the tree has no name; where it may stand is the piece's to know.
  if (length === 0) return kind === 'directory' || kind === 'attributes'
  for (let place = from; place < from + length; place += 1)
    if (bytes[place] === slash || bytes[place] === 0) return false
  return bytes[from] !== dot || length > 2 || (length === 2 && bytes[from + 1] !== dot)
}

function hasSoundTarget(kind: RecordKind, bytes: Buffer, from: number, length: number): boolean {
  switch (kind) {
    case 'symbolic link':
      return length > 0 && !bytes.subarray(from, from + length).includes(0)
    case 'hard link':
      return isSoundPath(bytes.toString('latin1', from, from + length))
    case 'character device':
    case 'block device':
      return length === 8
    default:
      return length === 0
  }
}

/** In order, apart from each other, inside the file and inside chunks there are. */
function areSound(bytes: Buffer, from: number, chunks: number, kind: RecordKind): boolean {
  if (kind !== 'file' && kind !== 'more' && kind !== 'attributes') return false
  const size = readUInt64(bytes, from + at.size)
  const end = from + bytes.readUInt32LE(from)
  let last = 0
  for (let place = extentsFrom(bytes, from); place < end; place += extentBytes) {
    const [offset, skip, length] = [
      readUInt64(bytes, place),
      bytes.readUInt32LE(place + 12),
      bytes.readUInt32LE(place + 16),
    ]
    if (offset < last || length === 0 || skip + length > contentMaximumBytes) return false
    if (bytes.readUInt32LE(place + 8) >= chunks) return false
    last = offset + length
  }
  return last <= size
}

export function readUInt64(bytes: Buffer, from: number): number {
  return bytes.readUInt32LE(from) + bytes.readUInt32LE(from + 4) * 2 ** 32
}

export function writeUInt64(bytes: Buffer, value: number, from: number): void {
  bytes.writeUInt32LE(value % 2 ** 32, from)
  bytes.writeUInt32LE(Math.floor(value / 2 ** 32), from + 4)
}

/** Seconds since 1970, with what is left of them in nanoseconds. */
export function timeAt(identity: Buffer, from: number): { readonly seconds: number; readonly nanoseconds: number } {
  const seconds = identity.readUInt32LE(from) + identity.readInt32LE(from + 4) * 2 ** 32
  return { seconds, nanoseconds: identity.readUInt32LE(from + 8) }
}

/** Folders stand in this order: each before those in it, and these before the next beside it. */
export function folderKey(path: string): string {
  return path.replaceAll('/', '\0')
}

export function below(folder: string, name: string): string {
  return folder === '' ? name : `${folder}/${name}`
}
