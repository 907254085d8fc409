/**
 * A pack: sealed chunks one after another and a sealed table of them, called by the BLAKE3 of the whole file.
 *
 * Each pack has a key of its own, so the number of a chunk in it is a nonce that cannot repeat. The name alone proves the
 * file, without any key.
 */
import { createCipheriv } from 'node:crypto'
import { KiB } from '#base/bytes.ts'
import { ForeignFault } from '../foreign.ts'
import { Fault, isFault } from '#base/fault.ts'
import { letGo } from '#base/let-go.ts'
import type { Random } from '#base/random.ts'
import { packMagic as magic } from '../digests.ts'
import { AppendFile } from './append-file.ts'
import { isAsNamed } from './as-named.ts'
import { nonceBytes, openBox, sealBox, tagBytes } from '../keys/box.ts'
import { idBytes, kindOf, kinds, metadataMaximumBytes, packMaximumBytes } from '../format.ts'
import type { Keyring, SealKey } from '../keys/keyring.ts'
import type { Place } from '../places/place.ts'

/** Of packs from before, called by their SHA-256: read as they are. */
const magicBefore = Buffer.from('HAKOPAK2', 'latin1')
const endMagic = Buffer.from('HAKOPEN2', 'latin1')
export const packHeaderBytes = 48
const footerBytes = 24
const entryBytes = idBytes + 16
/** Read at once from the end: most often the table is in it, and of a small pack all there is. */
const tailBytes = 16 * KiB
const metadataBit = 1
/** By a host that only adds. */
const inboxBit = 2
const knownBits = metadataBit | inboxBit

/** A chunk in a pack. */
export interface PackEntry {
  readonly id: Buffer
  readonly offset: number
  /** Of the sealed chunk, its tag included. */
  readonly length: number
  /** Of the content. */
  readonly plainBytes: number
  readonly flags: number
}

export function packName(id: string): string {
  return `packs/${id.slice(0, 2)}/${id}`
}

export class PackWriter implements AsyncDisposable {
  readonly #file: AppendFile
  readonly #key: Buffer
  readonly entries: PackEntry[] = []

  private constructor(file: AppendFile, key: Buffer) {
    this.#file = file
    this.#key = key
  }

  /** @param path where nothing is yet */
  static async create(
    path: string,
    {
      keyring,
      random,
      isMetadata,
    }: { readonly keyring: Keyring; readonly random: Random; readonly isMetadata: boolean },
  ): Promise<PackWriter> {
    const { epoch, isInbox, salt, key } = keyring.freshKey(random, 'hakobune pack')
    const header = Buffer.alloc(packHeaderBytes)
    magic.copy(header)
    header.writeUInt32LE(epoch, 8)
    header.writeUInt32LE((isMetadata ? metadataBit : 0) | (isInbox ? inboxBit : 0), 12)
    salt.copy(header, 16)
    const file = await AppendFile.create(path)
    await file.append(header)
    return new PackWriter(file, key)
  }

  get path(): string {
    return this.#file.path
  }

  get sizeBytes(): number {
    return this.#file.sizeBytes
  }

  /** @param stored the content in its stored form; may be changed afterwards */
  async append(id: Buffer, stored: Uint8Array, plainBytes: number, flags: number): Promise<PackEntry> {
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonceOf(BigInt(this.entries.length)))
    cipher.setAAD(about(id, flags))
    const offset = this.#file.sizeBytes
    const entry = { id, offset, length: stored.length + tagBytes, plainBytes, flags }
    this.entries.push(entry)
    // What comes out of `update` is a buffer of its own.
    const sealed = cipher.update(stored)
    cipher.final()
    await this.#file.append(sealed, cipher.getAuthTag())
    letGo(sealed)
    return entry
  }

  /** Adds the table and syncs. Returns the pack's name. */
  async finish(): Promise<string> {
    const table = Buffer.alloc(this.entries.length * entryBytes)
    for (const [number, { id, offset, length, plainBytes, flags }] of this.entries.entries()) {
      const at = number * entryBytes
      id.copy(table, at)
      table.writeUInt32LE(offset, at + 32)
      table.writeUInt32LE(length, at + 36)
      table.writeUInt32LE(plainBytes, at + 40)
      table.writeUInt32LE(flags, at + 44)
    }
    const footer = Buffer.alloc(footerBytes)
    footer.writeBigUInt64LE(BigInt(this.#file.sizeBytes), 0)
    footer.writeUInt32LE(this.entries.length, 8)
    endMagic.copy(footer, 16)
    await this.#file.append(sealBox(this.#key, tableNonce, magic, table))
    await this.#file.append(footer)
    return this.#file.finish()
  }

  /** Removes what was not put into place. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#file[Symbol.asyncDispose]()
  }
}

/** Chunks are numbered from 0, and no pack has that many. */
const tableNonce = nonceOf(2n ** 64n - 1n)

function nonceOf(number: bigint): Buffer {
  const nonce = Buffer.alloc(nonceBytes)
  nonce.writeBigUInt64LE(number)
  return nonce
}

function about(id: Uint8Array, flags: number): Buffer {
  const bytes = Buffer.allocUnsafe(idBytes + 4)
  bytes.set(id)
  bytes.writeUInt32LE(flags, idBytes)
  return bytes
}

/** A pack that was opened: its key, and its table. */
export interface OpenPack {
  readonly key: Buffer
  readonly entries: readonly PackEntry[]
  /** Number of the chunk at an offset, which its nonce is made of. */
  readonly numberAt: ReadonlyMap<number, number>
  readonly isMetadata: boolean
  /** By a host that only adds: it is not trusted to have called things by their names. */
  readonly isInbox: boolean
}

/**
 * What lies outside of every seal is compared with what must be there, so a pack that opens, and whose chunks all open, is
 * what was written from its first byte to its last.
 * @throws Fault `missing`; `damaged` naming the pack; `denied` when the keyring is too old
 */
export async function openPack(place: Place, keyring: Keyring, id: string): Promise<OpenPack> {
  const size = await sizeOfPack(place, id)
  if (size < packHeaderBytes + tagBytes + footerBytes || size > packMaximumBytes) {
    throw damagedPack(id, `it is ${size} bytes long`)
  }
  const tail = await readTail(place, id, size)
  const tailAt = size - tail.length
  const header = tailAt === 0 ? tail : await readPack(place, id, 0, packHeaderBytes)
  const footer = tail.subarray(tail.length - footerBytes)
  const begins = header.subarray(0, 8)
  if ((!begins.equals(magic) && !begins.equals(magicBefore)) || !footer.subarray(16).equals(endMagic)) {
    throw damagedPack(id, 'it has no beginning or no end')
  }
  const bits = header.readUInt32LE(12)
  if ((bits & ~knownBits) !== 0 || footer.readUInt32LE(12) !== 0) throw damagedPack(id, 'it says what it cannot')
  const [isMetadata, isInbox] = [(bits & metadataBit) !== 0, (bits & inboxBit) !== 0]
  const epoch = header.readUInt32LE(8)
  // It stands in the clear: a turned bit may make it the number of a key nobody has.
  if (keyring.canRead && epoch > keyring.epoch && !(await isAsNamed(place, packName(id), size))) {
    throw damagedPack(id, 'its digest does not match')
  }
  const salt = header.subarray(16, packHeaderBytes)
  const key = await ofPack(id, async () => keyOf(keyring, { epoch, isInbox, salt }, id))
  const [tableAt, count] = [Number(footer.readBigUInt64LE(0)), footer.readUInt32LE(8)]
  if (tableAt < packHeaderBytes || tableAt + count * entryBytes + tagBytes + footerBytes !== size) {
    throw damagedPack(id, 'its table has another size than its end says')
  }
  const sealedBytes = count * entryBytes + tagBytes
  const sealed =
    tableAt < tailAt
      ? await readPack(place, id, tableAt, sealedBytes)
      : tail.subarray(tableAt - tailAt, tableAt - tailAt + sealedBytes)
  const table = openBox(key, tableNonce, begins, sealed)
  if (!table) throw damagedPack(id, 'the seal of its table is broken')
  const entries = parseTable(table, id, tableAt)
  if (entries.some(({ flags }) => (kindOf(flags) !== kinds.content) !== isMetadata)) {
    throw damagedPack(id, 'it holds chunks of another kind than it says')
  }
  const numberAt = new Map(entries.map(({ offset }, number) => [offset, number]))
  return { key, entries, numberAt, isMetadata, isInbox }
}

async function sizeOfPack(place: Place, id: string): Promise<number> {
  return ofPack(id, () => place.sizeOf(packName(id)))
}

/** The footer, and what is before it where that can be read. */
async function readTail(place: Place, id: string, size: number): Promise<Buffer> {
  const from = Math.max(0, size - tailBytes)
  return readMore(
    () => readPack(place, id, from, size - from),
    () => readPack(place, id, size - footerBytes, footerBytes),
  )
}

/** Reads more than is needed; or, where part of that is not given out, what is needed alone. */
export async function readMore(more: () => Promise<Buffer>, needed: () => Promise<Buffer>): Promise<Buffer> {
  try {
    return await more()
  } catch (fault) {
    if (!isFault(fault, 'damaged')) throw fault
    return needed()
  }
}

/**
 * @param room where it is put
 * @throws Fault `missing`; `damaged` naming the pack, where its place does not give that out
 */
export async function readPack(
  place: Place,
  id: string,
  offset: number,
  length: number,
  room?: Buffer,
): Promise<Buffer> {
  return ofPack(id, () => place.read(packName(id), offset, length, room))
}

async function ofPack<T>(id: string, act: () => Promise<T>): Promise<T> {
  try {
    return await act()
  } catch (fault) {
    throw isFault(fault, 'damaged') ? damagedPack(id, fault.message, fault) : fault
  }
}

function keyOf(keyring: Keyring, sealedWith: Omit<SealKey, 'key'>, id: string): Buffer {
  const { epoch } = sealedWith
  if (!keyring.canRead || epoch <= keyring.epoch) return keyring.keyOf(sealedWith, 'hakobune pack')
  throw new ForeignFault(
    `pack ${id} is sealed with key number ${epoch}, and the keyring has none above ${keyring.epoch}`,
    {
      remedy:
        'The keys were changed since the datastore was opened, or the pack is damaged: open it again, and verify.',
    },
  )
}

function parseTable(table: Buffer, pack: string, tableAt: number): PackEntry[] {
  const entries: PackEntry[] = []
  let end = packHeaderBytes
  for (let at = 0; at < table.length; at += entryBytes) {
    const entry: PackEntry = {
      id: table.subarray(at, at + idBytes),
      offset: table.readUInt32LE(at + 32),
      length: table.readUInt32LE(at + 36),
      plainBytes: table.readUInt32LE(at + 40),
      flags: table.readUInt32LE(at + 44),
    }
    if (entry.offset !== end || entry.length < tagBytes || entry.plainBytes > metadataMaximumBytes) {
      throw damagedPack(pack, 'its table describes chunks that cannot be')
    }
    end += entry.length
    entries.push(entry)
  }
  if (end !== tableAt) throw damagedPack(pack, 'its table leaves bytes of it out')
  return entries
}

/** The stored form of a chunk. Nothing when the seal is broken. */
export function unseal(pack: OpenPack, { id, offset, flags }: PackEntry, sealed: Buffer): Buffer | undefined {
  const number = pack.numberAt.get(offset)
  if (number === undefined) return undefined
  return openBox(pack.key, nonceOf(BigInt(number)), about(id, flags), sealed)
}

export function damagedPack(id: string, how: string, cause?: unknown): Fault {
  return new Fault('damaged', `pack ${id} is damaged: ${how}`, {
    cause,
    remedy: 'Verify the datastore to see which backups are hit, and back up those guests again.',
  })
}
