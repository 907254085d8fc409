/**
 * A file or folder of a backup as a tar stream, in the form of POSIX with what GNU tar and bsdtar know beyond it: any
 * name, nanoseconds, large ids and sizes, extended attributes and access lists (`SCHILY`), holes (GNU's form 1.0).
 *
 * Ids are those inside the container. A further name is a hard link where its file is in the stream too, and a file
 * otherwise. Sockets are left out, as tar knows none. Rejected: the libraries for it write attributes as text, and no holes.
 */
import type { Attribute } from '#host/files/attribute-calls.ts'
import { accessListText } from './inside-ids.ts'
import type { ReadEntry, ReadTree, ReadTrees } from './read-tree.ts'
import { bytesOf } from './reader.ts'
import { folderKey } from './record.ts'

const block = 512
/** A file in more pieces than that is written with its holes as zeros. */
const runsMaximum = 10_000

interface Run {
  readonly offset: number
  length: number
}

/** A file or folder of one of the backup's trees. */
export interface TreePart {
  /** Of the tree. */
  readonly name: string
  /** As people write it, `/etc/hosts`; '' and `/` are the whole tree. */
  readonly path: string
  /** What it is called in the archive, as people write it. Default: the last part of its path, `.` for the whole tree. */
  readonly as?: string | undefined
  /** A folder in the tree that stays out, each character a byte. */
  readonly without?: string
}

/** @throws Fault `missing`, `damaged` naming the chunk */
export function tarOf<E extends ReadEntry>(reader: ReadTrees<E>, name: string, path: string): AsyncGenerator<Buffer> {
  return tarOfParts(reader, [{ name, path }])
}

/** A file that is in no tree: root's, and nobody else's to read. */
export interface AddedFile {
  readonly name: string
  readonly content: Buffer
  /** Seconds since 1970. */
  readonly modified: number
}

/**
 * One archive of several, one after the other.
 * @param added what stands in front
 * @throws Fault `missing`, `damaged` naming the chunk
 */
export async function* tarOfParts<E extends ReadEntry>(
  reader: ReadTrees<E>,
  parts: readonly TreePart[],
  added: readonly AddedFile[] = [],
): AsyncGenerator<Buffer> {
  for (const { name, content, modified } of added) {
    yield header({ name, type: '0', sizeBytes: content.length, mode: 0o600, seconds: modified })
    yield content
    yield padding(content.length)
  }
  for (const { name, path, as, without } of parts) {
    const tree = reader.tree(name)
    const top = bytesOf(path)
    const names = new Names(top, as)
    for await (const entry of inDepth(tree, await tree.entry(top), without)) yield* memberOf(tree, names, entry)
  }
  yield Buffer.alloc(2 * block)
}

/** Each folder with all that is in it, as programs that set times of folders expect. */
export async function* inDepth<E extends ReadEntry>(tree: ReadTree<E>, entry: E, without?: string): AsyncGenerator<E> {
  if (entry.path === without) return
  yield entry
  if (entry.kind !== 'directory') return
  for await (const inner of tree.list(entry.path)) yield* inDepth(tree, inner, without)
}

/** Names in the archive: from the top's own on. */
export class Names {
  readonly #top: string
  readonly #above: number
  readonly #as: string | undefined
  /** Files that come under another name before, or instead of, the one the catalogue has first. */
  readonly #moved = new Map<string, string>()

  /** @param as what the top is called; default: as it is */
  constructor(top: string, as?: string) {
    this.#top = top
    this.#above = top.lastIndexOf('/') + 1
    this.#as = as === undefined ? undefined : bytesOf(as)
  }

  of(path: string): string {
    if (this.#as !== undefined) {
      const below = this.#top === '' ? path : path.slice(this.#top.length + 1)
      return below === '' ? this.#as : `${this.#as}/${below}`
    }
    return path === '' ? '.' : path.slice(this.#above)
  }

  /** The name of the file this one is another name of; nothing when it is the first of it here. */
  firstOf({ path, kind, target = '' }: ReadEntry): string | undefined {
    if (kind !== 'hard link') return this.#movedOf(path)
    const isWithin = this.#top === '' || target === this.#top || target.startsWith(`${this.#top}/`)
    if (isWithin && folderKey(target) < folderKey(path)) return this.#movedOf(target) ?? this.of(target)
    const first = this.#movedOf(target)
    if (first === undefined) this.#moved.set(target, path)
    return first
  }

  #movedOf(path: string): string | undefined {
    const moved = this.#moved.get(path)
    return moved === undefined ? undefined : this.of(moved)
  }
}

async function* memberOf<E extends ReadEntry>(tree: ReadTree<E>, names: Names, entry: E): AsyncGenerator<Buffer> {
  const link = names.firstOf(entry)
  const told = { name: names.of(entry.path) }
  if (link !== undefined) return yield* headersOf({ ...told, type: '1', target: link, entry, sizeBytes: 0 })
  const real = entry.kind === 'hard link' ? await tree.entry(entry.target ?? '') : entry
  const facts = new Map((await tree.attributes(real)).map(factOf))
  const common = { ...told, entry: real, facts, sizeBytes: 0 }
  switch (real.kind) {
    case 'directory':
      return yield* headersOf({ ...common, name: `${told.name}/`, type: '5' })
    case 'symbolic link':
      return yield* headersOf({ ...common, type: '2', target: real.target ?? '' })
    case 'pipe':
      return yield* headersOf({ ...common, type: '6' })
    case 'character device':
      return yield* headersOf({ ...common, type: '3' })
    case 'block device':
      return yield* headersOf({ ...common, type: '4' })
    case 'file':
      return yield* fileOf(tree, common)
    case 'socket':
    case 'hard link':
      return
    default:
      return real.kind satisfies never
  }
}

/** Access lists as text, because programs apply them to entries that have none, too; the rest as it is. */
function factOf({ name, value }: Attribute): [string, Buffer] {
  const text = name.startsWith('system.posix_acl_') ? accessListText(value) : undefined
  if (text !== undefined) return [`SCHILY.acl.${name.slice('system.posix_acl_'.length)}`, Buffer.from(text)]
  return [`SCHILY.xattr.${escaped(name)}`, value]
}

async function* fileOf<E extends ReadEntry>(
  tree: ReadTree<E>,
  member: Member<E> & { facts: Map<string, Buffer> },
): AsyncGenerator<Buffer> {
  const { entry, name, facts } = member
  const runs = await runsOf(tree, entry)
  if (runs === undefined) {
    yield* headersOf({ ...member, type: '0', sizeBytes: entry.sizeBytes })
    yield* tree.content(entry)
    yield padding(entry.sizeBytes)
    return
  }
  // Where the runs lie stands before them. An empty one at the end tells how large the file is.
  const lines = [...runs, { offset: entry.sizeBytes, length: 0 }].flatMap(({ offset, length }) => [offset, length])
  const map = Buffer.from([lines.length / 2, ...lines].map((number) => `${number}\n`).join(''))
  const mapBytes = map.length + padding(map.length).length
  const sizeBytes = mapBytes + runs.reduce((sum, { length }) => sum + length, 0)
  facts.set('GNU.sparse.major', Buffer.from('1'))
  facts.set('GNU.sparse.minor', Buffer.from('0'))
  facts.set('GNU.sparse.name', Buffer.from(name, 'latin1'))
  facts.set('GNU.sparse.realsize', Buffer.from(String(entry.sizeBytes)))
  yield* headersOf({ ...member, name: `GNUSparseFile.0/${entry.name}`, type: '0', sizeBytes })
  yield map
  yield padding(map.length)
  for await (const { bytes } of tree.parts(entry)) yield bytes
  yield padding(sizeBytes)
}

/** Where a file has content; nothing for one without holes, or with too many. */
async function runsOf<E extends ReadEntry>(tree: ReadTree<E>, entry: E): Promise<Run[] | undefined> {
  const runs: Run[] = []
  for await (const { offset, length } of tree.ranges(entry)) {
    const last = runs.at(-1)
    if (last && last.offset + last.length === offset) last.length += length
    else if (runs.push({ offset, length }) > runsMaximum) return undefined
  }
  const [first] = runs
  const isWhole = entry.sizeBytes === 0 || (first?.offset === 0 && first.length === entry.sizeBytes)
  return isWhole ? undefined : runs
}

interface Member<E extends ReadEntry = ReadEntry> {
  readonly name: string
  readonly entry: E
  readonly sizeBytes: number
  readonly target?: string
  readonly facts?: ReadonlyMap<string, Buffer>
}

function* headersOf({
  name,
  type,
  entry,
  sizeBytes,
  target = '',
  facts,
}: Member & { type: string }): Generator<Buffer> {
  const { uid, gid, modified, device, mode } = entry
  const ahead = new Map(facts)
  if (!fits(name)) ahead.set('path', Buffer.from(name, 'latin1'))
  if (!fits(target)) ahead.set('linkpath', Buffer.from(target, 'latin1'))
  if (uid >= 8 ** 7) ahead.set('uid', Buffer.from(String(uid)))
  if (gid >= 8 ** 7) ahead.set('gid', Buffer.from(String(gid)))
  if (sizeBytes >= 8 ** 11) ahead.set('size', Buffer.from(String(sizeBytes)))
  if (modified.nanoseconds > 0 || modified.seconds < 0 || modified.seconds >= 8 ** 11) {
    ahead.set('mtime', Buffer.from(timeText(modified)))
  }
  if (ahead.size > 0) {
    const content = Buffer.concat([...ahead].map(([key, value]) => record(key, value)))
    yield header({ name: 'facts', type: 'x', sizeBytes: content.length })
    yield content
    yield padding(content.length)
  }
  yield header({ name, type, sizeBytes, mode, uid, gid, seconds: modified.seconds, target, device })
}

interface Header {
  readonly name: string
  readonly type: string
  readonly sizeBytes: number
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  readonly seconds?: number
  readonly target?: string
  readonly device?: ReadEntry['device']
}

function header({
  name,
  type,
  sizeBytes,
  mode = 0o644,
  uid = 0,
  gid = 0,
  seconds = 0,
  target = '',
  device,
}: Header): Buffer {
  const bytes = Buffer.alloc(block)
  // What does not fit is told ahead.
  const octal = (value: number, at: number, length: number) => {
    const kept = value >= 0 && value < 8 ** (length - 1) ? value : 0
    bytes.write(`${kept.toString(8).padStart(length - 1, '0')}\0`, at, 'latin1')
  }
  bytes.write(name, 0, 100, 'latin1')
  octal(mode, 100, 8)
  octal(uid, 108, 8)
  octal(gid, 116, 8)
  octal(sizeBytes, 124, 12)
  octal(seconds, 136, 12)
  bytes.write(type, 156, 1, 'latin1')
  bytes.write(target, 157, 100, 'latin1')
  bytes.write('ustar\x0000', 257, 'latin1')
  octal(device?.major ?? 0, 329, 8)
  octal(device?.minor ?? 0, 337, 8)
  bytes.write('        ', 148, 'latin1')
  const sum = bytes.reduce((total, byte) => total + byte, 0)
  bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return bytes
}

/** Into the fields of a header, where all may be trusted to read it the same. */
function fits(name: string): boolean {
  return name.length <= 100 && /^[\x20-\x7e]*$/.test(name)
}

/** `30 path=a name\n`: the length counts itself. */
function record(key: string, value: Buffer): Buffer {
  const rest = key.length + value.length + 3
  const digits = String(rest + String(rest).length).length
  return Buffer.concat([Buffer.from(`${rest + digits} ${key}=`), value, Buffer.from('\n')])
}

/** As GNU tar has it: no sign that ends a key, nor the one it is escaped with. */
function escaped(name: string): string {
  return name.replaceAll('%', '%25').replaceAll('=', '%3D')
}

function timeText({ seconds, nanoseconds }: ReadEntry['modified']): string {
  // Nanoseconds count forward, also before 1970.
  const [whole, part] = seconds < 0 && nanoseconds > 0 ? [seconds + 1, 1e9 - nanoseconds] : [seconds, nanoseconds]
  const sign = seconds < 0 && whole === 0 ? '-' : ''
  return `${sign}${whole}.${String(part).padStart(9, '0')}`
}

function padding(length: number): Buffer {
  return Buffer.alloc((block - (length % block)) % block)
}
