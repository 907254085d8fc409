/**
 * A pack: a file of blobs one after another, with a table of them at its end, called by the SHA-256 of
 * the whole file. Immutable; the name alone proves the content, without any index.
 *
 * Readers of backups never need the table (indexes say offset and length); it serves deduplication and
 * rescue. A table that cannot be trusted is a fault here and merely "chunks unknown" to a writer.
 */
import { crc32 } from 'node:zlib'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import type { Digest } from '#base/ids.ts'
import { asFileFault } from '#host/files.ts'
import { AppendFile } from '#datastore/append-file.ts'
import { blobHeaderBytes, blobMaximumBytes } from './blob.ts'
import { digestBytes, digestOf } from './digest.ts'
import { formatVersion, packMaximumBytes } from './format.ts'

export const packHeaderBytes = 16
const entryBytes = digestBytes + 8
const footerBytes = 56
const magic = Buffer.from('HAKOPACK', 'latin1')
const endMagic = Buffer.from('HAKOPEND', 'latin1')

export interface PackEntry {
  readonly digest: Buffer
  /** Of the blob's first byte in the pack. */
  readonly offset: number
  /** Of the whole blob. */
  readonly length: number
}

/** Where a pack lies, relative to the datastore. */
export function packPath(id: Digest): string {
  return join('packs', id.slice(0, 2), id)
}

export class PackWriter {
  readonly #file: AppendFile
  readonly #table: Buffer[] = []

  private constructor(file: AppendFile) {
    this.#file = file
  }

  static async create(path: string): Promise<PackWriter> {
    const file = await AppendFile.create(path, { takesOver: true })
    const header = Buffer.alloc(packHeaderBytes)
    magic.copy(header)
    header.writeUInt32LE(formatVersion, 8)
    await file.append(header)
    return new PackWriter(file)
  }

  get path(): string {
    return this.#file.path
  }

  get sizeBytes(): number {
    return this.#file.sizeBytes
  }

  /** Takes the blob over, and returns its offset. */
  async append(blob: Buffer, digest: Uint8Array): Promise<number> {
    const { length } = blob
    const offset = await this.#file.append(blob)
    const entry = Buffer.alloc(entryBytes)
    entry.set(digest)
    entry.writeUInt32LE(offset, digestBytes)
    entry.writeUInt32LE(length, digestBytes + 4)
    this.#table.push(entry)
    return offset
  }

  /** Adds the table and syncs. Returns the pack's name. */
  async finish(): Promise<Digest> {
    const table = Buffer.concat(this.#table)
    const footer = Buffer.alloc(footerBytes)
    footer.writeUInt32LE(this.#table.length, 8)
    footer.writeUInt32LE(crc32(table), 12)
    digestOf(table).copy(footer, 16)
    endMagic.copy(footer, 48)
    footer.writeBigUInt64LE(BigInt(await this.#file.append(table)), 0)
    await this.#file.append(footer)
    return this.#file.finish()
  }

  discard(): Promise<void> {
    return this.#file.discard()
  }
}

/**
 * The entries of a pack's table.
 * @param name the pack, for the fault
 * @throws Fault `missing` when there is no such file, `damaged` when it is not a whole pack
 */
export async function readPackTable(path: string, name: string): Promise<PackEntry[]> {
  let handle: FileHandle
  try {
    handle = await open(path, 'r')
  } catch (cause) {
    throw asFileFault(cause, path)
  }
  try {
    const { size } = await handle.stat()
    if (size < packHeaderBytes + footerBytes || size > packMaximumBytes)
      throw damagedPack(name, `it is ${size} bytes long`)
    const footer = await readAt(handle, size - footerBytes, footerBytes)
    const { tableAt, count } = checkFooter(footer, size, name)
    return parseTable(await readAt(handle, tableAt, count * entryBytes), footer, name)
  } finally {
    await handle.close()
  }
}

/**
 * Checks a whole pack in memory against its name and returns its table.
 * @throws Fault `damaged`
 */
export function checkPack(content: Buffer, id: Digest): PackEntry[] {
  const name = `pack ${id}`
  if (content.length < packHeaderBytes + footerBytes) throw damagedPack(name, `it is ${content.length} bytes long`)
  const footer = content.subarray(content.length - footerBytes)
  const { tableAt, count } = checkFooter(footer, content.length, name)
  const entries = parseTable(content.subarray(tableAt, tableAt + count * entryBytes), footer, name)
  const isPack = content.subarray(0, 8).equals(magic) && content.readUInt32LE(8) === formatVersion
  if (!isPack) throw damagedPack(name, 'its header is wrong')
  return entries
}

export function damagedPack(name: string, how: string, cause?: unknown): Fault {
  return new Fault('damaged', `${name} is damaged: ${how}`, {
    cause,
    remedy: 'Verify the datastore to see which backups are hit, and back up those guests again.',
  })
}

function checkFooter(footer: Buffer, size: number, name: string): { tableAt: number; count: number } {
  if (!footer.subarray(48).equals(endMagic)) throw damagedPack(name, 'it has no end')
  const tableAt = Number(footer.readBigUInt64LE(0))
  const count = footer.readUInt32LE(8)
  if (tableAt < packHeaderBytes || tableAt + count * entryBytes + footerBytes !== size) {
    throw damagedPack(name, 'its table has another size than its end says')
  }
  return { tableAt, count }
}

function parseTable(table: Buffer, footer: Buffer, name: string): PackEntry[] {
  if (crc32(table) !== footer.readUInt32LE(12) || !digestOf(table).equals(footer.subarray(16, 48))) {
    throw damagedPack(name, 'the digest of its table does not match')
  }
  const entries: PackEntry[] = []
  let end = packHeaderBytes
  for (let at = 0; at < table.length; at += entryBytes) {
    const digest = table.subarray(at, at + digestBytes)
    const [offset, length] = [table.readUInt32LE(at + digestBytes), table.readUInt32LE(at + digestBytes + 4)]
    if (offset !== end || length < blobHeaderBytes || length > blobMaximumBytes) {
      throw damagedPack(name, 'its table describes blobs that cannot be')
    }
    end = offset + length
    entries.push({ digest, offset, length })
  }
  return entries
}

/** Exactly `length` bytes. @throws Error at the end of the file */
export async function readAt(handle: FileHandle, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length)
  let done = 0
  while (done < length) {
    const { bytesRead } = await handle.read(bytes, done, length - done, offset + done)
    if (bytesRead === 0) throw new Error(`the file ends ${length - done} bytes early`)
    done += bytesRead
  }
  return bytes
}
