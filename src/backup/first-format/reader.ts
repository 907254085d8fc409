/**
 * Reads one backup. Whatever it returns has been checked against the digest the index holds for it, so
 * a damaged datastore gives a fault that names the chunk, never wrong bytes.
 */
import { type FileHandle, open, readFile } from 'node:fs/promises'
import { Fault, isFault, missing } from '#base/fault.ts'
import type { Digest } from '#base/ids.ts'
import { asFileFault, codeOf, readIfPresent } from '#host/files.ts'
import { type BackupId, printBackupId } from '#datastore/backup-id.ts'
import { decodeBlob } from './blob.ts'
import type { BlockSource, Extent } from '#datastore/backup/block-source.ts'
import { digestText } from './digest.ts'
import { chunkBytes } from './format.ts'
import { type IndexEntry, IndexReader, type StoredChunk } from './index-file.ts'
import type { Layout } from './layout.ts'
import { type Manifest, type ManifestDisk, parseManifest, treesOf } from './manifest.ts'
import { readAt } from './read-at.ts'
import { TreeReader } from '#datastore/tree/reader.ts'
import { StoredTree } from './stored-tree.ts'

/** Packs kept open; chunks of one disk lie mostly one after another in few of them. */
const openPacksMaximum = 16

export class BackupReader implements AsyncDisposable {
  readonly id: BackupId
  readonly manifest: Manifest
  readonly layout: Layout
  readonly #packs = new Map<Digest, Promise<FileHandle>>()
  readonly #disks = new Map<string, DiskReader>()
  readonly #trees = new Map<string, { readonly tree: TreeReader; readonly stored: StoredTree }>()

  private constructor(layout: Layout, id: BackupId, manifest: Manifest) {
    this.layout = layout
    this.id = id
    this.manifest = manifest
  }

  /** For `FirstDatastore.open`. */
  static async open(layout: Layout, id: BackupId): Promise<BackupReader> {
    const name = printBackupId(id)
    let reader: BackupReader | undefined
    try {
      const text = await readIfPresent(layout.manifest(id))
      if (text === undefined) throw missing('backup', name)
      const manifest = parseManifest(text, `the manifest of backup ${name}`)
      if (printBackupId({ type: manifest.type, id: manifest.id, time: manifest.time }) !== name) {
        throw new Fault('damaged', `the manifest of backup ${name} is damaged: it belongs to another backup`)
      }
      reader = new BackupReader(layout, id, manifest)
      for (const disk of manifest.disks) reader.#disks.set(disk.name, await DiskReader.open(reader, disk))
      for (const facts of treesOf(manifest)) {
        const stored = await StoredTree.open(reader, facts)
        reader.#trees.set(facts.name, { tree: new TreeReader(facts, stored), stored })
      }
      return reader
    } catch (cause) {
      if (reader) await reader.#closeParts()
      throw cause
    }
  }

  /** @throws Fault `missing` */
  disk(name: string): DiskReader {
    const disk = this.#disks.get(name)
    if (!disk) throw missing(`disk of backup ${printBackupId(this.id)}`, name)
    return disk
  }

  /** @throws Fault `missing` */
  tree(name: string): TreeReader {
    return this.#tree(name).tree
  }

  /** What is known of a tree's pieces. @throws Fault `missing` */
  catalogue(name: string): StoredTree {
    return this.#tree(name).stored
  }

  #tree(name: string): { readonly tree: TreeReader; readonly stored: StoredTree } {
    const tree = this.#trees.get(name)
    if (!tree) throw missing(`tree of backup ${printBackupId(this.id)}`, name)
    return tree
  }

  /** A file stored with the backup, checked. @throws Fault `missing`, `damaged` */
  async file(name: string): Promise<Buffer> {
    const stored = this.manifest.files.find((file) => file.name === name)
    if (!stored) throw missing(`file of backup ${printBackupId(this.id)}`, name)
    const damaged = (how: string, cause?: unknown) =>
      new Fault('damaged', `file ${name} of backup ${printBackupId(this.id)} is damaged: ${how}`, { cause })
    let content: Buffer
    try {
      content = await readFile(this.layout.file(this.id, name))
    } catch (cause) {
      throw damaged('it cannot be read', cause)
    }
    if (digestText(content) !== stored.sha256) throw damaged('its digest does not match')
    return content
  }

  /** The chunk, checked. @throws Fault `damaged` naming the chunk */
  async chunk(entry: StoredChunk): Promise<Buffer> {
    const { digest, pack, offset, length } = entry
    return decodeBlob(await this.#fetch(pack, offset, length), digest, `pack ${pack} at ${offset}`)
  }

  async #fetch(pack: Digest, offset: number, length: number): Promise<Buffer> {
    try {
      return await readAt(await this.#openPack(pack), offset, length)
    } catch (cause) {
      if (codeOf(cause) !== 'ENOENT' && codeOf(cause) !== undefined && !isFault(cause, 'missing'))
        throw asFileFault(cause, pack)
      const how = isFault(cause, 'missing') ? 'it is gone' : 'it is too short'
      throw new Fault('damaged', `pack ${pack} is damaged: ${how}`, { cause })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#closeParts()
    for (const pack of this.#packs.values()) await pack.then((handle) => handle.close()).catch(() => {})
    this.#packs.clear()
  }

  async #closeParts(): Promise<void> {
    for (const disk of this.#disks.values()) await disk.close()
    for (const { stored } of this.#trees.values()) await stored.close()
  }

  async #openPack(id: Digest): Promise<FileHandle> {
    const opened = this.#packs.get(id) ?? openFile(this.layout.pack(id))
    // Last used goes last; the first is the one to close.
    this.#packs.delete(id)
    this.#packs.set(id, opened)
    for (const [oldest, handle] of this.#packs) {
      if (this.#packs.size <= openPacksMaximum) break
      this.#packs.delete(oldest)
      // FileHandle.close waits for reads under way.
      await handle.then((file) => file.close()).catch(() => {})
    }
    return opened
  }
}

/** A disk of a backup: may itself be the source of something else. */
export class DiskReader implements BlockSource {
  readonly facts: ManifestDisk
  readonly sizeBytes: number
  readonly #reader: BackupReader
  readonly #index: IndexReader

  private constructor(reader: BackupReader, facts: ManifestDisk, index: IndexReader) {
    this.#reader = reader
    this.facts = facts
    this.sizeBytes = facts.sizeBytes
    this.#index = index
  }

  /** For `BackupReader.open`. */
  static async open(reader: BackupReader, facts: ManifestDisk): Promise<DiskReader> {
    const name = `index ${facts.name} of backup ${printBackupId(reader.id)}`
    let index: IndexReader
    try {
      index = await IndexReader.open(reader.layout.index(reader.id, facts.name), name)
    } catch (cause) {
      throw isFault(cause, 'missing') ? new Fault('damaged', `${name} is damaged: it is gone`, { cause }) : cause
    }
    if (index.sizeBytes === facts.sizeBytes) return new DiskReader(reader, facts, index)
    await index[Symbol.asyncDispose]()
    throw new Fault('damaged', `${name} is damaged: it describes another disk`)
  }

  /** All chunks that are not zero, in order. */
  entries(): AsyncGenerator<IndexEntry> {
    return this.#index.entries()
  }

  async *extents(): AsyncGenerator<Extent> {
    let [from, to] = [0, 0] // of the data not yet reported
    for await (const { position } of this.#index.entries()) {
      const offset = position * chunkBytes
      if (offset > to) {
        if (to > from) yield { offset: from, length: to - from, isZero: false }
        yield { offset: to, length: offset - to, isZero: true }
        from = offset
      }
      to = Math.min(this.sizeBytes, offset + chunkBytes)
    }
    if (to > from) yield { offset: from, length: to - from, isZero: false }
    if (this.sizeBytes > to) yield { offset: to, length: this.sizeBytes - to, isZero: true }
  }

  /** @throws Fault `damaged` naming the chunk, `invalid` outside the disk */
  async read(offset: number, into: Uint8Array): Promise<void> {
    if (offset < 0 || offset + into.length > this.sizeBytes) {
      throw new Fault('invalid', `${into.length} bytes at ${offset} are outside of disk ${this.facts.name}`)
    }
    for (let at = offset; at < offset + into.length;) {
      const position = Math.floor(at / chunkBytes)
      const skip = at - position * chunkBytes
      const length = Math.min(chunkBytes - skip, offset + into.length - at)
      const entry = await this.#index.entryAt(position)
      if (entry) into.set((await this.#reader.chunk(entry)).subarray(skip, skip + length), at - offset)
      else into.fill(0, at - offset, at - offset + length)
      at += length
    }
  }

  /** Closed with its backup; here so that a disk can be used as a source. */
  async [Symbol.asyncDispose](): Promise<void> {}

  async close(): Promise<void> {
    await this.#index[Symbol.asyncDispose]()
  }
}

async function openFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r')
  } catch (cause) {
    throw asFileFault(cause, path)
  }
}
