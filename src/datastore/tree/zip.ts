/**
 * A file or folder of a backup as a zip stream, for people whose systems have nothing else. Files, folders and links
 * with their modes and times; no owners, no attributes, and what is neither is left out: that is what tar is for.
 *
 * Sizes stand behind the content, as they are not known before; large files and archives are told of in the forms of
 * zip64. In memory is one table line for each entry, which the format wants at the end.
 */
import { Readable } from 'node:stream'
import { createDeflateRaw, crc32, deflateRawSync } from 'node:zlib'
import { MiB } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import type { ReadEntry, ReadTree, ReadTrees } from './read-tree.ts'
import { bytesOf } from './reader.ts'
import { Names } from './tar.ts'

const entriesMaximum = 1_000_000
const [stored, deflated] = [0, 8]
const [sizesBehind, inUtf8] = [0x0008, 0x0800]
const version = 45
const full = 0xffff_ffff
/** Compressed content may be a little larger than it was. */
const largeBytes = full - 64 * MiB
const smallBytes = 1 * MiB
const typeBits: Partial<Record<ReadEntry['kind'], number>> = {
  file: 0o100000,
  directory: 0o040000,
  'symbolic link': 0o120000,
}

/** What the headers of an entry say in both of its places. */
interface Member<E extends ReadEntry = ReadEntry> {
  readonly name: Buffer
  readonly entry: E
  readonly method: number
  readonly flags: number
  readonly isLarge: boolean
}

interface Sums {
  readonly crc: number
  readonly sizeBytes: number
  readonly packedBytes: number
}

/**
 * @param path as people write it, `/etc`; '' and `/` are the whole tree
 * @param as what it is called in the archive; default: the last part of its path
 * @throws Fault `missing`, `damaged` naming the chunk, `too-large`
 */
export async function* zipOf<E extends ReadEntry>(
  reader: ReadTrees<E>,
  name: string,
  path: string,
  as?: string,
): AsyncGenerator<Buffer> {
  const tree = reader.tree(name)
  const top = bytesOf(path)
  const names = new Names(top, as)
  const table: Buffer[] = []
  let offset = 0
  for await (const named of tree.entries(top)) {
    const entry = named.kind === 'hard link' ? await tree.entry(named.target ?? '') : named
    if (typeBits[entry.kind] === undefined || named.path === '') continue
    if (table.length >= entriesMaximum) {
      throw new Fault('too-large', `'${path}' has more than ${entriesMaximum} entries, too many for a zip archive`, {
        remedy: 'Ask for a tar archive.',
      })
    }
    const member = memberOf(names.of(named.path), entry)
    const start = offset
    const head = localHeader(member)
    yield head
    offset += head.length
    const sums = { crc: 0, sizeBytes: 0, packedBytes: 0 }
    for await (const bytes of contentOf(tree, member, sums)) {
      yield bytes
      offset += bytes.length
    }
    const behind = sumsBehind(member, sums)
    yield behind
    offset += behind.length
    table.push(tableLine(member, sums, start))
  }
  yield* table
  yield end(table, offset)
}

function memberOf<E extends ReadEntry>(path: string, entry: E): Member<E> {
  const name = Buffer.from(entry.kind === 'directory' ? `${path}/` : path, 'latin1')
  const isText = Buffer.from(name.toString()).equals(name)
  const isPacked = entry.kind === 'file' && entry.sizeBytes > 0
  return {
    name,
    entry,
    method: isPacked ? deflated : stored,
    flags: sizesBehind | (isText ? inUtf8 : 0),
    isLarge: entry.kind === 'file' && entry.sizeBytes >= largeBytes,
  }
}

/** The packed bytes; counts the sums on. */
async function* contentOf<E extends ReadEntry>(
  tree: ReadTree<E>,
  { entry }: Member<E>,
  sums: { crc: number; sizeBytes: number; packedBytes: number },
): AsyncGenerator<Buffer> {
  const counted = function* (plain: Buffer, packed: Buffer) {
    sums.crc = crc32(plain, sums.crc)
    sums.sizeBytes += plain.length
    sums.packedBytes += packed.length
    yield packed
  }
  if (entry.kind === 'symbolic link') {
    const target = Buffer.from(entry.target ?? '', 'latin1')
    yield* counted(target, target)
  }
  if (entry.kind !== 'file' || entry.sizeBytes === 0) return
  if (entry.sizeBytes <= smallBytes) {
    const parts: Buffer[] = []
    for await (const part of tree.content(entry)) parts.push(part)
    const plain = Buffer.concat(parts)
    yield* counted(plain, deflateRawSync(plain, { level: 1 }))
    return
  }
  const plain = async function* () {
    for await (const part of tree.content(entry)) {
      sums.crc = crc32(part, sums.crc)
      sums.sizeBytes += part.length
      yield part
    }
  }
  const source = Readable.from(plain(), { objectMode: false })
  const packer = createDeflateRaw({ level: 1 })
  source.on('error', (cause) => packer.destroy(cause))
  for await (const packed of source.pipe(packer) as AsyncIterable<Buffer>) {
    sums.packedBytes += packed.length
    yield packed
  }
}

function localHeader({ name, entry, method, flags, isLarge }: Member): Buffer {
  const extra = Buffer.concat([...(isLarge ? [extraField(1, Buffer.alloc(16))] : []), times(entry)])
  const head = Buffer.alloc(30)
  head.writeUInt32LE(0x0403_4b50, 0)
  head.writeUInt16LE(version, 4)
  writeCommon(head, 6, { flags, method, entry })
  if (isLarge) head.writeUInt32LE(full, 18)
  if (isLarge) head.writeUInt32LE(full, 22)
  head.writeUInt16LE(name.length, 26)
  head.writeUInt16LE(extra.length, 28)
  return Buffer.concat([head, name, extra])
}

function sumsBehind({ isLarge }: Member, { crc, sizeBytes, packedBytes }: Sums): Buffer {
  const bytes = Buffer.alloc(isLarge ? 24 : 16)
  bytes.writeUInt32LE(0x0807_4b50, 0)
  bytes.writeUInt32LE(crc, 4)
  if (isLarge) {
    bytes.writeBigUInt64LE(BigInt(packedBytes), 8)
    bytes.writeBigUInt64LE(BigInt(sizeBytes), 16)
  } else {
    bytes.writeUInt32LE(packedBytes, 8)
    bytes.writeUInt32LE(sizeBytes, 12)
  }
  return bytes
}

function tableLine(
  { name, entry, method, flags }: Member,
  { crc, sizeBytes, packedBytes }: Sums,
  start: number,
): Buffer {
  const isLarge = [sizeBytes, packedBytes, start].some((value) => value >= full)
  const sizes = Buffer.alloc(24)
  for (const [at, value] of [sizeBytes, packedBytes, start].entries()) sizes.writeBigUInt64LE(BigInt(value), at * 8)
  const extra = Buffer.concat([...(isLarge ? [extraField(1, sizes)] : []), times(entry)])
  const line = Buffer.alloc(46)
  line.writeUInt32LE(0x0201_4b50, 0)
  // Made by: a Unix, so that modes are read.
  line.writeUInt16LE(0x0300 | version, 4)
  line.writeUInt16LE(version, 6)
  writeCommon(line, 8, { flags, method, entry })
  line.writeUInt32LE(crc, 16)
  line.writeUInt32LE(isLarge ? full : packedBytes, 20)
  line.writeUInt32LE(isLarge ? full : sizeBytes, 24)
  line.writeUInt16LE(name.length, 28)
  line.writeUInt16LE(extra.length, 30)
  const mode = (typeBits[entry.kind] ?? 0) | entry.mode
  line.writeUInt32LE(mode * 65_536 + (entry.kind === 'directory' ? 0x10 : 0), 38)
  line.writeUInt32LE(isLarge ? full : start, 42)
  return Buffer.concat([line, name, extra])
}

/** The end of the table, in the large form where it is needed and in the small one. */
function end(table: readonly Buffer[], offset: number): Buffer {
  const bytes = table.reduce((sum, { length }) => sum + length, 0)
  const isLarge = table.length >= 0xffff || offset + bytes >= full
  const large = Buffer.alloc(isLarge ? 76 : 0)
  if (isLarge) {
    large.writeUInt32LE(0x0606_4b50, 0)
    large.writeBigUInt64LE(44n, 4)
    large.writeUInt16LE(version, 12)
    large.writeUInt16LE(version, 14)
    for (const [at, value] of [table.length, table.length, bytes, offset].entries()) {
      large.writeBigUInt64LE(BigInt(value), 24 + at * 8)
    }
    large.writeUInt32LE(0x0706_4b50, 56)
    large.writeBigUInt64LE(BigInt(offset + bytes), 64)
    large.writeUInt32LE(1, 72)
  }
  const small = Buffer.alloc(22)
  small.writeUInt32LE(0x0605_4b50, 0)
  const count = Math.min(0xffff, isLarge ? 0xffff : table.length)
  small.writeUInt16LE(count, 8)
  small.writeUInt16LE(count, 10)
  small.writeUInt32LE(isLarge ? full : bytes, 12)
  small.writeUInt32LE(isLarge ? full : offset, 16)
  return Buffer.concat([large, small])
}

function writeCommon(
  into: Buffer,
  at: number,
  { flags, method, entry }: Pick<Member, 'flags' | 'method' | 'entry'>,
): void {
  into.writeUInt16LE(flags, at)
  into.writeUInt16LE(method, at + 2)
  // Whoever does not read the exact time, in UTC, sees this one; it knows the years from 1980 to 2107.
  const time = new Date(Math.min(Math.max(entry.modified.seconds, 315_532_800), 4_354_819_199) * 1000)
  into.writeUInt16LE((time.getUTCHours() << 11) | (time.getUTCMinutes() << 5) | (time.getUTCSeconds() >> 1), at + 4)
  const date = ((time.getUTCFullYear() - 1980) << 9) | ((time.getUTCMonth() + 1) << 5) | time.getUTCDate()
  into.writeUInt16LE(date, at + 6)
}

/** Seconds since 1970, where they fit. */
function times({ modified: { seconds } }: ReadEntry): Buffer {
  if (seconds < -(2 ** 31) || seconds >= 2 ** 31) return Buffer.alloc(0)
  const bytes = Buffer.alloc(5)
  bytes.writeUInt8(1, 0)
  bytes.writeInt32LE(seconds, 1)
  return extraField(0x5455, bytes)
}

function extraField(kind: number, content: Buffer): Buffer {
  const head = Buffer.alloc(4)
  head.writeUInt16LE(kind, 0)
  head.writeUInt16LE(content.length, 2)
  return Buffer.concat([head, content])
}
