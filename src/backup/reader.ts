/**
 * Reads one backup. Whatever it returns has been checked against the digest the index holds for it, so
 * a damaged datastore gives a fault that names the chunk, never wrong bytes.
 *
 * A reader announces itself, so what it reads stays until it is disposed of, even when the backup is
 * removed meanwhile.
 */
import { type FileHandle, open, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault, isFault, missing } from '#base/fault.ts'
import type { Digest } from '#base/ids.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { asFileFault, codeOf, readIfPresent, writeFileAtomic } from '#host/files.ts'
import { type BackupId, printBackupId } from '#datastore/backup-id.ts'
import { decodeBlob } from './blob.ts'
import type { BlockSource, Extent } from '#datastore/block-source.ts'
import { digestText } from './digest.ts'
import { chunkBytes } from './format.ts'
import { HeldFile } from '#datastore/held-file.ts'
import { type IndexEntry, IndexReader, type StoredChunk } from './index-file.ts'
import type { Layout } from './layout.ts'
import { type Manifest, type ManifestDisk, parseManifest, treesOf } from './manifest.ts'
import { damagedPack, readAt } from './pack.ts'
import { TreeReader } from '#datastore/tree/reader.ts'
import { StoredTree } from './tree/stored-tree.ts'
import { type VerifiedBackup, verifyBackup, type VerifyOptions } from './verify.ts'

export interface ReaderDeps {
  readonly random: Random
  readonly log: Log
  /** Called when the reader is gone. Never throws. */
  readonly onClose?: () => Promise<void>
}

/** Packs kept open; chunks of one disk lie mostly one after another in few of them. */
const openPacksMaximum = 16

export class BackupReader implements AsyncDisposable {
  readonly id: BackupId
  readonly manifest: Manifest
  readonly layout: Layout
  readonly #log: Log
  readonly #held: HeldFile
  readonly #heldPath: string
  readonly #onClose: () => Promise<void>
  readonly #packs = new Map<Digest, Promise<FileHandle>>()
  readonly #disks = new Map<string, DiskReader>()
  readonly #trees = new Map<string, { readonly tree: TreeReader; readonly stored: StoredTree }>()

  private constructor(
    layout: Layout,
    id: BackupId,
    manifest: Manifest,
    held: HeldFile,
    heldPath: string,
    { log, onClose = async () => {} }: ReaderDeps,
  ) {
    this.layout = layout
    this.id = id
    this.manifest = manifest
    this.#held = held
    this.#heldPath = heldPath
    this.#log = log
    this.#onClose = onClose
  }

  /** For `Datastore.open`. */
  static async open(layout: Layout, id: BackupId, deps: ReaderDeps): Promise<BackupReader> {
    const name = printBackupId(id)
    const heldPath = join(layout.readers(), deps.random.uuid())
    const held = HeldFile.tryHold(heldPath)
    if (!held) throw new Error('a new file is held by somebody else')
    let reader: BackupReader | undefined
    try {
      const text = await readIfPresent(layout.manifest(id))
      if (text === undefined) throw missing('backup', name)
      const manifest = parseManifest(text, `the manifest of backup ${name}`)
      if (printBackupId({ type: manifest.type, id: manifest.id, time: manifest.time }) !== name) {
        throw new Fault('damaged', `the manifest of backup ${name} is damaged: it belongs to another backup`)
      }
      reader = new BackupReader(layout, id, manifest, held, heldPath, deps)
      // Open from the start, so that a removal cannot take them away later.
      for (const disk of manifest.disks) reader.#disks.set(disk.name, await DiskReader.open(reader, disk))
      for (const facts of treesOf(manifest)) {
        const stored = await StoredTree.open(reader, facts)
        reader.#trees.set(facts.name, { tree: new TreeReader(facts, stored), stored })
      }
      return reader
    } catch (cause) {
      if (reader) await reader.#closeParts()
      held.release()
      await rm(heldPath, { force: true })
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

  /** Where the parts of a tree lie. @throws Fault `missing` */
  treeFile(name: string): StoredTree {
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
    return this.decode(await this.fetch(entry.pack, entry.offset, entry.length), entry)
  }

  /** Stored bytes of one or several neighbouring chunks, unchecked. */
  async fetch(pack: Digest, offset: number, length: number): Promise<Buffer> {
    try {
      return await readAt(await this.#openPack(pack), offset, length)
    } catch (cause) {
      if (codeOf(cause) !== 'ENOENT' && codeOf(cause) !== undefined && !isFault(cause, 'missing'))
        throw asFileFault(cause, pack)
      throw damagedPack(`pack ${pack}`, isFault(cause, 'missing') ? 'it is gone' : 'it is too short', cause)
    }
  }

  /** Checks stored bytes; a pack in which damage is seen is marked, so that no later backup relies on it. */
  async decode(blob: Buffer, { digest, pack, offset }: StoredChunk): Promise<Buffer> {
    try {
      return decodeBlob(blob, digest, `pack ${pack} at ${offset}`)
    } catch (cause) {
      await this.#suspect(pack, cause)
      throw cause
    }
  }

  /** See `verify.ts`. */
  verify(options: VerifyOptions = {}): Promise<VerifiedBackup> {
    return verifyBackup(this, options)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#closeParts()
    for (const pack of this.#packs.values()) await pack.then((handle) => handle.close()).catch(() => {})
    this.#packs.clear()
    this.#held.release()
    await rm(this.#heldPath, { force: true })
    await this.#onClose()
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

  async #suspect(pack: Digest, why: unknown): Promise<void> {
    this.#log.warn('a damaged chunk was found', { pack, cause: why })
    try {
      await writeFileAtomic(this.layout.suspect(pack), '')
    } catch (cause) {
      // A datastore mounted read-only is still worth reading.
      this.#log.warn('the damaged pack could not be marked', { pack, cause })
    }
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
