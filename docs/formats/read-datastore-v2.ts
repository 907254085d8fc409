#!/usr/bin/env node
/**
 * Reads a datastore of version 2 with nothing but Node: for the day on which there is no Hakobune to do it.
 *
 *     node read-datastore-v2.ts <dir> list
 *     node read-datastore-v2.ts <dir> show <backup>                     (host/web/2026-01-01T00:00:00Z)
 *     node read-datastore-v2.ts <dir> restore <backup> <disk or file> <new file>
 *     node read-datastore-v2.ts <dir> files <backup> <tree>
 *     node read-datastore-v2.ts <dir> restore <backup> <tree> <new folder>   (what Node can make: files, folders and links,
 *                                       with owners, modes and times; the rest it names on standard error)
 *     node read-datastore-v2.ts <dir> restore-all <new folder> [<backup> …]   (every part of every backup, or of those named,
 *                                       as <new folder>/<backup>/<part>; what cannot be read is named, and left out)
 *
 * The first line of standard input is the passphrase, or the recovery key as it was printed. The format is described in
 * datastore-v2.md beside this file; this is that page as a program, and shares no code with the product.
 */
import {
  argon2Sync,
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hkdfSync,
  verify,
} from 'node:crypto'
import {
  chmodSync,
  chownSync,
  closeSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { zstdDecompressSync } from 'node:zlib'

interface Format {
  readonly version: number
  readonly id: string
  readonly chunkBytes: number
  readonly signer: string
}
interface Slot {
  readonly id: string
  readonly kind: string
  readonly role?: string
  readonly public: string
  readonly wrapped: string
  readonly kdf?: { readonly salt: string; readonly memoryKiB: number; readonly passes: number; readonly lanes: number }
}
interface KeyFile {
  readonly datastore: string
  readonly generation: number
  readonly ring: string
  readonly slots: readonly Slot[]
  readonly signature?: string
}
interface Keyring {
  readonly chunkId: string
  readonly packs: readonly string[]
}
interface Manifest {
  readonly namespace: string
  readonly type: string
  readonly id: string
  readonly time: number
  readonly epoch: number
  readonly inbox?: boolean
  readonly salt: string
  readonly body: string
  readonly writer?: {
    readonly id: string
    readonly namespace: string
    readonly public: string
    readonly signature: string
  }
  readonly signature: string
}
interface Disk {
  readonly name: string
  readonly sizeBytes: number
  readonly digest: string
  readonly root: readonly string[]
}
interface Tree {
  readonly name: string
  readonly digest: string
  readonly root: readonly string[]
  readonly pieces: number
  readonly entries: number
}
interface Body {
  readonly disks: readonly Disk[]
  readonly trees: readonly Tree[]
  readonly files: readonly { readonly name: string; readonly chunks: readonly string[] }[]
  readonly facts: unknown
}

const [dir = '', verb = '', ...args] = process.argv.slice(2)
const base64 = (text: string) => Buffer.from(text, 'base64')
class Unreadable extends Error {}
const fail = (text: string): never => {
  throw new Unreadable(text)
}

/** `{"sha256":…,"value":…}` on one line. */
function sealedJson<T>(path: string): T {
  return wholeJson<T>(path) ?? fail(`${path} is damaged`)
}

function wholeJson<T>(path: string): T | undefined {
  try {
    const { sha256, value } = JSON.parse(readFileSync(path, 'utf8')) as { readonly sha256: string; readonly value: T }
    return createHash('sha256').update(JSON.stringify(value)).digest('hex') === sha256 ? value : undefined
  } catch {
    return undefined
  }
}

function gcm(key: Uint8Array, nonce: Uint8Array, about: Uint8Array, sealed: Buffer): Buffer | undefined {
  if (sealed.length < 16) return undefined
  const opening = createDecipheriv('aes-256-gcm', key, nonce)
  opening.setAAD(about)
  opening.setAuthTag(sealed.subarray(-16))
  const text = opening.update(sealed.subarray(0, -16))
  try {
    opening.final()
    return text
  } catch {
    return undefined
  }
}

const hkdf = (key: Uint8Array, salt: Uint8Array, info: string) => Buffer.from(hkdfSync('sha256', key, salt, info, 32))
const privateX25519 = (key: Buffer) =>
  createPrivateKey({
    key: Buffer.concat([Buffer.from('302e020100300506032b656e04220420', 'hex'), key]),
    format: 'der',
    type: 'pkcs8',
  })
const publicX25519 = (key: Buffer) =>
  createPublicKey({
    key: Buffer.concat([Buffer.from('302a300506032b656e032100', 'hex'), key]),
    format: 'der',
    type: 'spki',
  })

const publicEd25519 = (key: Buffer) =>
  createPublicKey({
    key: Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), key]),
    format: 'der',
    type: 'spki',
  })

const isBy = (key: Buffer, text: string, by: string) => verify(null, Buffer.from(text), publicEd25519(key), base64(by))

/** Base32 of the key and three bytes of its SHA-256; what is between the letters does not count. */
function recoveryKey(text: string): Buffer | undefined {
  const letters = text.toUpperCase().replace(/[^A-Z2-7]/g, '')
  if (letters.length !== 56) return undefined
  const bits = letters
    .split('')
    .map((letter) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(letter).toString(2).padStart(5, '0'))
    .join('')
  const bytes = Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => parseInt(byte, 2)))
  const check = createHash('sha256').update(bytes.subarray(0, 32)).digest().subarray(0, 3)
  return check.equals(bytes.subarray(32, 35)) ? bytes.subarray(0, 32) : undefined
}

/** The highest key file the datastore has signed; where none is signed, all of them, as they were made before that. */
function keyFiles({ id, signer }: Format): KeyFile[] {
  const names = readdirSync(join(dir, 'keys')).filter((name) => /^\d{8}$/.test(name))
  const files: KeyFile[] = []
  for (const name of names.sort().reverse()) {
    const file = wholeJson<KeyFile>(join(dir, 'keys', name))
    if (file?.datastore !== id || file.generation !== Number(name)) {
      console.error(`keys/${name} is damaged, or somebody else's, and is passed over`)
      continue
    }
    const { signature, ...signed } = file
    if (signature === undefined) files.push(file)
    else if (isBy(base64(signer), `hakobune keys ${JSON.stringify(signed)}`, signature)) return [file]
    else console.error(`keys/${name} is not signed by this datastore, and is passed over`)
  }
  return files.length > 0 ? files : fail('there are no keys')
}

function keyring(secret: string, format: Format): Keyring {
  for (const file of keyFiles(format)) {
    const keys = keysIn(file, secret)
    if (keys) return keys
  }
  return fail('neither passphrase nor recovery key of this datastore')
}

function keysIn({ datastore, ring, slots, signature }: KeyFile, secret: string): Keyring | undefined {
  const about = Buffer.from(`hakobune ${signature === undefined ? '' : 'signed '}keyring ${datastore}`)
  for (const { id, kind, role, kdf, public: publicKey, wrapped } of slots) {
    // A host that only adds: nothing is opened by it.
    if (role !== undefined) continue
    const own =
      kind === 'recovery'
        ? recoveryKey(secret)
        : kdf
          ? argon2Sync('argon2id', {
              message: secret.normalize('NFC'),
              nonce: base64(kdf.salt),
              memory: kdf.memoryKiB,
              passes: kdf.passes,
              parallelism: kdf.lanes,
              tagLength: 32,
            })
          : undefined
    if (!own) continue
    const [ephemeral, sealed] = [base64(wrapped).subarray(0, 32), base64(wrapped).subarray(32)]
    const shared = diffieHellman({ privateKey: privateX25519(Buffer.from(own)), publicKey: publicX25519(ephemeral) })
    const key = hkdf(shared, Buffer.concat([ephemeral, base64(publicKey)]), `hakobune slot ${id}`)
    const root = gcm(key, Buffer.alloc(12), Buffer.from(id), sealed)
    const text = root && gcm(root, base64(ring).subarray(0, 12), about, base64(ring).subarray(12))
    if (text) return JSON.parse(text.toString('utf8')) as Keyring
  }
  return undefined
}

interface Place {
  readonly path: string
  readonly key: Buffer
  readonly number: number
  readonly id: Buffer
  readonly offset: number
  readonly length: number
  readonly plain: number
  readonly flags: number
  /** By a host that only adds: it counts only if its content makes its id. */
  readonly counts?: (content: Buffer) => boolean
  /** What kind of chunk its content was proven to be once: what is under the same seal is the same. */
  provenAs?: number
}

function bytesAt(path: string, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  const file = openSync(path, 'r')
  try {
    if (readSync(file, bytes, 0, length, offset) !== length) fail(`${path} is cut off`)
  } finally {
    closeSync(file)
  }
  return bytes
}

function newFile(path: string | Buffer, write: (file: number) => void): void {
  const file = openSync(path, 'wx', 0o600)
  try {
    write(file)
  } finally {
    closeSync(file)
  }
}

const nonceOf = (number: bigint) => {
  const nonce = Buffer.alloc(12)
  nonce.writeBigUInt64LE(number)
  return nonce
}

const privateX25519Public = (key: Buffer) =>
  Buffer.from(createPublicKey(privateX25519(key)).export({ format: 'der', type: 'spki' }).subarray(-32))

/** What a pack or a manifest is sealed with. By a host that only adds, the salt is the public half of a pair made for it. */
function sealKey(secret: Buffer, isInbox: boolean, salt: Buffer, what: string): Buffer | undefined {
  if (!isInbox) return hkdf(secret, salt, what)
  const own = hkdf(secret, Buffer.alloc(0), 'hakobune inbox')
  try {
    const shared = diffieHellman({ privateKey: privateX25519(own), publicKey: publicX25519(salt) })
    return hkdf(shared, Buffer.concat([salt, privateX25519Public(own)]), what)
  } catch {
    // Anybody may have written it.
    return undefined
  }
}

/** Where every chunk is, some of them more than once, from the tables of the packs; segments only say the same faster. */
function chunksOfPacks(packKeys: Buffer[], chunkId: Buffer): Map<string, Place[]> {
  const places = new Map<string, Place[]>()
  for (const entry of readdirSync(join(dir, 'packs'), { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const path = join(entry.parentPath, entry.name)
    const { size } = statSync(path)
    const isOfPack = size >= 72 && size <= 64 * 2 ** 20
    const [header, footer] = isOfPack
      ? [bytesAt(path, 0, 48), bytesAt(path, size - 24, 24)]
      : [Buffer.alloc(48), Buffer.alloc(24)]
    const epoch = packKeys[header.readUInt32LE(8)]
    const tableAt = Number(footer.readBigUInt64LE(0))
    const isInside = tableAt >= 48 && tableAt <= size - 24
    const isInbox = (header.readUInt32LE(12) & 2) !== 0
    const key = epoch && sealKey(epoch, isInbox, header.subarray(16), 'hakobune pack')
    const table =
      key &&
      isInside &&
      gcm(key, nonceOf(2n ** 64n - 1n), header.subarray(0, 8), bytesAt(path, tableAt, size - 24 - tableAt))
    if (!table) {
      console.error(`pack ${entry.name} cannot be read and is left out`)
      continue
    }
    for (let at = 0, number = 0; at < table.length; at += 48, number += 1) {
      const [offset, length, plain, flags] = [32, 36, 40, 44].map((column) => table.readUInt32LE(at + column)) as [
        number,
        number,
        number,
        number,
      ]
      const id = table.toString('hex', at, at + 16)
      const copies = places.get(id) ?? []
      places.set(id, copies)
      copies.push({
        path,
        key,
        number,
        id: table.subarray(at, at + 32),
        offset,
        length,
        plain,
        flags,
        ...(isInbox && {
          counts: (content: Buffer) => (flags & 256) === 0 && makesId(chunkId, (flags >> 4) & 15, content, id),
        }),
      })
    }
  }
  return places
}

function unpacked(stored: Buffer, bytes: number): Buffer | undefined {
  try {
    return zstdDecompressSync(stored, { maxOutputLength: Math.max(1, bytes) })
  } catch {
    return undefined
  }
}

/** @param id 16 bytes or more, in hexadecimal */
function chunk(places: Map<string, Place[]>, id: string): { content: Buffer; flags: number; place: Place } {
  const copies = places.get(id.slice(0, 32)) ?? fail(`chunk ${id} is in no pack`)
  for (const place of copies) {
    const flags = Buffer.alloc(4)
    flags.writeUInt32LE(place.flags)
    const about = Buffer.concat([place.id, flags])
    const stored = gcm(place.key, nonceOf(BigInt(place.number)), about, bytesAt(place.path, place.offset, place.length))
    // Another copy of it may be whole.
    if (!stored) continue
    const content = (place.flags & 15) === 1 ? unpacked(stored, place.plain) : stored
    if (!content || place.counts?.(content) === false) continue
    return { content, flags: place.flags, place }
  }
  return fail(`chunk ${id} in ${copies.map(({ path }) => path).join(', ')} is damaged`)
}

/** The ids of a piece: the list itself, or what differs from another. */
function piece(places: Map<string, Place[]>, id: string): Buffer {
  const { content, flags } = chunk(places, id)
  if ((flags & 256) === 0) return content
  const ids = Buffer.from(piece(places, content.toString('hex', 0, 16)))
  for (let at = 20; at < content.length; at += 18) content.copy(ids, content.readUInt16LE(at) * 16, at + 2, at + 18)
  return ids
}

const chain = Int32Array.of(
  0x6a09e667,
  0xbb67ae85,
  0x3c6ef372,
  0xa54ff53a,
  0x510e527f,
  0x9b05688c,
  0x1f83d9ab,
  0x5be0cd19,
)
const marks = { start: 1, end: 2, parent: 4, root: 8, keyed: 16 } as const
/** Which word of a block is taken when: in each of seven rounds another order. */
const orders: number[][] = [Array.from({ length: 16 }, (_, word) => word)]
for (let round = 1; round < 7; round += 1) {
  const before = orders[round - 1] ?? []
  orders.push([2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8].map((word) => before[word] ?? 0))
}
const order = Uint8Array.from(orders.flat())
const state = new Int32Array(16)

const word = (words: Int32Array, number: number) => words[number] ?? 0

function mix(a: number, b: number, c: number, d: number, first: number, second: number): void {
  let [va, vb, vc, vd] = [word(state, a), word(state, b), word(state, c), word(state, d)]
  va = (va + vb + first) | 0
  vd ^= va
  vd = (vd >>> 16) | (vd << 16)
  vc = (vc + vd) | 0
  vb ^= vc
  vb = (vb >>> 12) | (vb << 20)
  va = (va + vb + second) | 0
  vd ^= va
  vd = (vd >>> 8) | (vd << 24)
  vc = (vc + vd) | 0
  vb ^= vc
  state[a] = va
  state[b] = (vb >>> 7) | (vb << 25)
  state[c] = vc
  state[d] = vd
}

/** One step of BLAKE3: a value of eight words and a block of sixteen make another value, in the place of the first. */
function compress(value: Int32Array, m: Int32Array, counter: number, bytes: number, flags: number): void {
  state.set(value)
  state.set(chain.subarray(0, 4), 8)
  state.set([counter, Math.floor(counter / 2 ** 32), bytes, flags], 12)
  for (let round = 0; round < 112; round += 16) {
    const of = (number: number) => m[order[round + number] ?? 0] ?? 0
    mix(0, 4, 8, 12, of(0), of(1))
    mix(1, 5, 9, 13, of(2), of(3))
    mix(2, 6, 10, 14, of(4), of(5))
    mix(3, 7, 11, 15, of(6), of(7))
    mix(0, 5, 10, 15, of(8), of(9))
    mix(1, 6, 11, 12, of(10), of(11))
    mix(2, 7, 8, 13, of(12), of(13))
    mix(3, 4, 9, 14, of(14), of(15))
  }
  for (let number = 0; number < 8; number += 1) value[number] = word(state, number) ^ word(state, number + 8)
}

/** BLAKE3 with a key, 32 bytes. */
function keyedBlake3(key: Uint8Array, content: Uint8Array): Buffer {
  const block = new Int32Array(16)
  const blockBytes = new Uint8Array(block.buffer)
  const keyWords = new Int32Array(Uint8Array.from(key).buffer)
  const valueOf = (from: number, to: number, root: number): Int32Array => {
    const value = Int32Array.from(keyWords)
    if (to - from > 1024) {
      const middle = from + 2 ** Math.ceil(Math.log2((to - from) / 1024) - 1) * 1024
      const both = Int32Array.of(...valueOf(from, middle, 0), ...valueOf(middle, to, 0))
      compress(value, both, 0, 64, marks.keyed | marks.parent | root)
      return value
    }
    for (let at = from; at === from || at < to; at += 64) {
      const bytes = Math.min(64, to - at)
      blockBytes.fill(0)
      blockBytes.set(content.subarray(at, at + bytes))
      const [start, end] = [at === from ? marks.start : 0, at + 64 >= to ? marks.end | root : 0]
      compress(value, block, from / 1024, bytes, marks.keyed | start | end)
    }
    return value
  }
  return Buffer.from(valueOf(0, content.length, marks.root).buffer)
}

/** @param id in hexadecimal, 16 bytes or more */
function makesId(chunkId: Buffer, kind: number, content: Buffer, id: string): boolean {
  const key = hkdf(chunkId, Buffer.alloc(0), `hakobune id ${kind}`)
  if (keyedBlake3(key, content).toString('hex').startsWith(id)) return true
  // As they were made before BLAKE3.
  const before = createHmac('sha256', chunkId)
    .update(Buffer.from([kind]))
    .update(content)
  return before.digest('hex').startsWith(id)
}

const isZero = (id: string) => /^0*$/.test(id)

function restoreDisk({ places, chunkId, format }: Opened, disk: Disk, target: string): void {
  const { chunkBytes } = format
  const pieces = Math.ceil(Math.ceil(disk.sizeBytes / chunkBytes) / 4096)
  if (disk.root.length !== Math.ceil(pieces / 65_536)) fail('the map of the disk has another size')
  const root = Buffer.concat(disk.root.map((id) => chunk(places, id).content))
  const size = Buffer.alloc(8)
  size.writeBigUInt64LE(BigInt(disk.sizeBytes))
  if (createHmac('sha256', chunkId).update(size).update(root).digest('hex') !== disk.digest)
    fail('the map of the disk is damaged')
  newFile(target, (file) => {
    ftruncateSync(file, disk.sizeBytes)
    for (let at = 0; at < root.length; at += 16) {
      const pieceId = root.toString('hex', at, at + 16)
      if (isZero(pieceId)) continue
      const ids = piece(places, pieceId)
      if (!makesId(chunkId, 1, ids, pieceId)) fail(`piece ${at / 16} of the map is damaged`)
      for (let position = 0; position < ids.length / 16; position += 1) {
        const id = ids.toString('hex', position * 16, position * 16 + 16)
        if (isZero(id)) continue
        const content = proven(places, chunkId, id, 0)
        writeSync(file, content, 0, content.length, ((at / 16) * 4096 + position) * chunkBytes)
      }
    }
  })
}

/** A chunk whose content was proven to make its id. */
function proven(places: Map<string, Place[]>, chunkId: Buffer, id: string, kind: number): Buffer {
  const { content, place } = chunk(places, id)
  if (place.provenAs !== kind && !makesId(chunkId, kind, content, id)) fail(`chunk ${id} is damaged`)
  place.provenAs = kind
  return content
}

/** Ids of what a list names: pieces, or lists. */
function listed(list: Buffer): string[] {
  if (list.toString('latin1', 0, 4) !== 'HKL2') fail('a list of a tree is none')
  const ids: string[] = []
  for (let at = 16; at < list.length; at += 32 + list.readUInt16LE(at + 28) + list.readUInt16LE(at + 30)) {
    ids.push(list.toString('hex', at, at + 16))
  }
  return ids
}

interface Entry {
  readonly kind: string
  /** As text of bytes (latin1); empty for the root. */
  readonly path: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  readonly modified: number
  readonly target: string
  readonly extents: {
    readonly offset: number
    readonly chunk: string
    readonly skip: number
    readonly length: number
  }[]
}

/** Every entry in order; what stands apart (attributes, further extents) belongs to the one before. */
function* entriesOf(places: Map<string, Place[]>, chunkId: Buffer, tree: Tree): Generator<Entry> {
  const size = Buffer.alloc(8)
  size.writeBigUInt64LE(BigInt(tree.pieces))
  const root = Buffer.concat(tree.root.map((id) => Buffer.from(id, 'hex')))
  if (createHmac('sha256', chunkId).update(size).update(root).digest('hex') !== tree.digest) fail('the tree is damaged')
  let last: Entry | undefined
  for (const top of tree.root)
    for (const list of listed(proven(places, chunkId, top, 2)))
      for (const pieceId of listed(proven(places, chunkId, list, 2))) {
        const bytes = proven(places, chunkId, pieceId, 2)
        if (bytes.toString('latin1', 0, 4) !== 'HKT2') fail(`piece ${pieceId} is none`)
        let folder = ''
        for (let at = 16 + 16 * bytes.readUInt32LE(4); at < bytes.length; at += bytes.readUInt32LE(at)) {
          const end = at + bytes.readUInt32LE(at)
          const kind = bytes.toString('latin1', at + 4, at + 5)
          if (kind === 'D') {
            folder = bytes.toString('latin1', at + 8, end)
            continue
          }
          const entry = entryAt(bytes, at, folder)
          if (kind === '+') last?.extents.push(...entry.extents)
          if (kind === '+' || kind === '@') continue
          if (last) yield last
          last = entry
        }
      }
  if (last) yield last
}

function entryAt(bytes: Buffer, at: number, folder: string): Entry {
  const end = at + bytes.readUInt32LE(at)
  const [nameBytes, targetBytes] = [bytes.readUInt8(at + 5), bytes.readUInt16LE(at + 56)]
  const name = bytes.toString('latin1', at + 64, at + 64 + nameBytes)
  const path = name === '' ? '' : folder === '' ? name : `${folder}/${name}`
  const isSound = path.split('/').every((part) => part !== '.' && part !== '..' && !part.includes('\0'))
  if (!isSound || name.includes('/') || (name === '' && folder !== '')) fail('a name in the tree leads elsewhere')
  const extents = []
  for (let place = end - 20 * bytes.readUInt16LE(at + 58); place < end; place += 20) {
    const number = bytes.readUInt32LE(place + 8)
    extents.push({
      offset: Number(bytes.readBigUInt64LE(place)),
      chunk: bytes.toString('hex', 16 + 16 * number, 32 + 16 * number),
      skip: bytes.readUInt32LE(place + 12),
      length: bytes.readUInt32LE(place + 16),
    })
  }
  return {
    kind: bytes.toString('latin1', at + 4, at + 5),
    path,
    mode: bytes.readUInt16LE(at + 6),
    uid: bytes.readUInt32LE(at + 8),
    gid: bytes.readUInt32LE(at + 12),
    size: Number(bytes.readBigUInt64LE(at + 16)),
    modified: Number(bytes.readBigInt64LE(at + 24)) + bytes.readUInt32LE(at + 32) / 1e9,
    target: bytes.toString('latin1', at + 64 + nameBytes, at + 64 + nameBytes + targetBytes),
    extents,
  }
}

/** Into a folder that is not there yet, and that nobody else can write to. */
function restoreTree({ places, chunkId }: Opened, tree: Tree, target: string): void {
  mkdirSync(target, { mode: 0o700 })
  // A link is made at once, but none is ever gone through: whatever is in one is damage.
  const links = new Set<string>()
  const at = (path: string) => {
    const names = path.split('/')
    if (names.some((_, depth) => links.has(names.slice(0, depth).join('/')))) fail('a folder in the tree is a link')
    return Buffer.concat([Buffer.from(target), Buffer.from(path === '' ? '' : `/${path}`, 'latin1')])
  }
  const finish = ({ kind, path, uid, gid, mode, modified }: Entry) => {
    if (process.getuid?.() === 0) (kind === 'l' ? lchownSync : chownSync)(at(path), uid, gid)
    if (kind !== 'l') chmodSync(at(path), mode)
    lutimesSync(at(path), modified, modified)
  }
  const directories: Entry[] = []
  for (const entry of entriesOf(places, chunkId, tree)) {
    const { kind, path, size, extents } = entry
    if (kind === 'd') {
      if (path !== '') mkdirSync(at(path), { mode: 0o700 })
      directories.push(entry)
    } else if (kind === 'f') {
      newFile(at(path), (file) => {
        for (const { offset, chunk: id, skip, length } of extents) {
          writeSync(file, proven(places, chunkId, id, 0), skip, length, offset)
        }
        ftruncateSync(file, size)
      })
      finish(entry)
    } else if (kind === 'l') {
      symlinkSync(Buffer.from(entry.target, 'latin1'), at(path))
      links.add(path)
      finish(entry)
    } else if (kind === 'h') {
      try {
        linkSync(at(entry.target), at(path))
        if (links.has(entry.target)) links.add(path)
      } catch {
        console.error(`left out: ${path}, another name of ${entry.target}`)
      }
    } else console.error(`left out: ${path}, of kind ${kind}`)
  }
  for (const entry of directories.reverse()) finish(entry)
}

interface Opened {
  readonly format: Format
  readonly packKeys: readonly Buffer[]
  readonly chunkId: Buffer
  readonly places: Map<string, Place[]>
}

function backups(): string[] {
  const entries = readdirSync(join(dir, 'backups'), { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(join(dir, 'backups').length + 1).replace(/^_\//, '')) // prettier-ignore
}

function bodyOf({ format, packKeys }: Pick<Opened, 'format' | 'packKeys'>, backup: string): Body {
  const name = backup.split('/').length === 3 ? `_/${backup}` : backup
  const { signature, ...signed } = sealedJson<Manifest>(join(dir, 'backups', name))
  const { namespace, type, id, time, epoch, inbox, salt, body, writer } = signed
  if (writer) {
    const { namespace: within, public: own } = writer
    const vouching = `hakobune writer ${writer.id} ${within || '_'} ${own}`
    const isVouchedFor = isBy(base64(format.signer), vouching, writer.signature)
    const isWithin = within === '' || namespace === within || namespace.startsWith(`${within}.`)
    if (!isVouchedFor || !isWithin) fail('the manifest is by a host this datastore does not know')
  }
  if (!isBy(base64(writer?.public ?? format.signer), JSON.stringify(signed), signature))
    fail('the manifest is not signed by this datastore')
  const about = `${namespace === '' ? '_' : namespace}/${type}/${id}/${new Date(time * 1000).toISOString().slice(0, 19)}Z`
  if (about !== name) fail(`the manifest is that of ${about}`)
  const secretOfEpoch = packKeys[epoch] ?? fail('the keyring is older than the manifest')
  const manifestKey = sealKey(secretOfEpoch, inbox === true, base64(salt), 'hakobune manifest')
  const text =
    (manifestKey && gcm(manifestKey, base64(body).subarray(0, 12), Buffer.from(about), base64(body).subarray(12))) ??
    fail('the manifest is damaged')
  return JSON.parse(zstdDecompressSync(text).toString('utf8')) as Body
}

function restorePart(opened: Opened, { disks, trees, files }: Body, part: string, target: string): void {
  const disk = disks.find(({ name }) => name === part)
  const tree = trees.find(({ name }) => name === part)
  const file = files.find(({ name }) => name === part)
  if (tree) restoreTree(opened, tree, target)
  else if (disk) restoreDisk(opened, disk, target)
  else if (file) {
    newFile(target, (out) => {
      for (const one of file.chunks) writeSync(out, chunk(opened.places, one).content)
    })
  } else fail(`the backup has no part called ${part}`)
}

function restoreAll(opened: Opened, folder: string, names: readonly string[]): void {
  mkdirSync(folder, { mode: 0o700 })
  for (const backup of names) {
    const into = join(folder, backup)
    unlessUnreadable(backup, into, () => {
      const body = bodyOf(opened, backup)
      mkdirSync(into, { recursive: true, mode: 0o700 })
      for (const { name } of [...body.disks, ...body.trees, ...body.files]) {
        if (!/^[a-z][a-z0-9.-]{0,63}$/.test(name)) fail(`a part is called ${JSON.stringify(name)}`)
        unlessUnreadable(`${name} of ${backup}`, join(into, name), () =>
          restorePart(opened, body, name, join(into, name)),
        )
      }
    })
  }
}

/** No half of it stays under its name. */
function unlessUnreadable(what: string, target: string, act: () => void): void {
  try {
    act()
  } catch (error) {
    rmSync(target, { recursive: true, force: true })
    console.error(`left out: ${what}: ${error instanceof Error ? error.message : String(error)}`)
    process.exitCode = 1
  }
}

function listFiles({ places, chunkId }: Opened, tree: Tree): void {
  for (const { kind, mode, uid, gid, size, path } of entriesOf(places, chunkId, tree))
    console.log(
      `${kind} ${mode.toString(8).padStart(4, '0')} ${uid}:${gid} ${size} /${Buffer.from(path, 'latin1').toString().replace(/\p{C}/gu, '?')}`,
    )
}

function main(): void {
  const format = sealedJson<Format>(join(dir, 'format'))
  if (format.version !== 2) fail(`version ${format.version} is not read by this`)
  if (verb === 'list') {
    for (const backup of backups()) console.log(backup)
    return
  }
  if (!['show', 'files', 'restore', 'restore-all'].includes(verb))
    fail(
      'usage: read-datastore-v2.ts <dir> list | show <backup> | files <backup> <tree> | restore <backup> <part> <new file> | restore-all <new folder> [<backup> …]',
    )
  const { chunkId, packs } = keyring(readFileSync(0, 'utf8').split(/\r?\n/, 1)[0] ?? '', format)
  const keys = { format, packKeys: packs.map(base64), chunkId: base64(chunkId) }
  const opened = () => ({ ...keys, places: chunksOfPacks(keys.packKeys, keys.chunkId) })
  if (verb === 'restore-all') {
    const [folder = '', ...named] = args
    restoreAll(opened(), folder, named.length > 0 ? named : backups())
    return
  }
  const [backup = '', part = '', target = ''] = args
  const body = bodyOf(keys, backup)
  if (verb === 'show') {
    const { disks, trees, files, facts } = body
    console.log(JSON.stringify({ disks, trees, files, facts }, null, 2))
  } else if (verb === 'files') {
    listFiles(opened(), body.trees.find(({ name }) => name === part) ?? fail(`the backup has no tree called ${part}`))
  } else restorePart(opened(), body, part, target)
}

try {
  main()
} catch (error) {
  if (!(error instanceof Unreadable)) throw error
  console.error(error.message)
  process.exitCode = 1
}
