/**
 * Writes one backup: cuts disks (and files, `tree/`) into chunks, stores those nobody has yet, and commits by one rename.
 *
 * Order of durability: packs and indexes are synced and in place before the manifest is written, the
 * manifest is synced before the rename, the directory after it. Cut off anywhere, what is there is
 * either no backup at all or a whole one. Compression runs on the main thread: at 128 KiB the threads of
 * `node:zlib` cost more CPU (a context per call) than they save time.
 */
import { isZero } from '#base/bytes.ts'
import { diskNamePattern, storedFilePattern } from '#datastore/format.ts'
import { mkdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Fault } from '#base/fault.ts'
import { asFileFault, codeOf, syncDirectory, writeFileAtomic } from '#host/files.ts'
import type { Json } from '#store/store.ts'
import { type BackupId, printBackupId } from '#datastore/backup-id.ts'
import type { BlockSource } from '#datastore/block-source.ts'
import { ChunkStore, type WriterDeps } from './chunk-store.ts'
import { digestOf, digestText, TreeDigest } from './digest.ts'
import {
  chunkBytes,
  diskMaximumBytes,
  disksMaximum,
  formatVersion,
  storedFileMaximumBytes,
  treesVersion,
} from './format.ts'
import { IndexWriter } from './index-file.ts'
import { type Manifest, type ManifestDisk, type ManifestFile, printManifest } from './manifest.ts'
import { type Marks, writeMarks } from './marks.ts'
import { type FilledRegion, readSource } from '#datastore/read-ahead.ts'
import type { AddTreeOptions, TreeCounts } from '#datastore/tree/pass.ts'
import type { TreeSource } from '#datastore/tree/source.ts'
import { type AddedTree, TreesWriter } from './tree/writer.ts'

export interface DiskProgress {
  readonly disk: string
  /** Position on the disk, holes included. */
  readonly doneBytes: number
  readonly sizeBytes: number
  /** Read so far: holes excluded. */
  readonly readBytes: number
  /** Added to packs so far for this disk. */
  readonly storedBytes: number
}

export interface AddDiskOptions {
  readonly onProgress?: (progress: DiskProgress) => void
  readonly signal?: AbortSignal | undefined
  /** Upper bound of what is read from the source. */
  readonly rateBytesPerSecond?: number | undefined
  /** Reads of the source under way at once. */
  readonly readsAhead?: number | undefined
}

export interface CommitOptions {
  /** The moment the data is from. Default: the time in the backup's name. */
  readonly pointInTimeMs?: number | undefined
  /** Notes and protection, in force from the moment the backup is visible. */
  readonly marks?: Marks | undefined
}

interface OpenDisk {
  readonly index: IndexWriter
  readonly facts: Omit<ManifestDisk, 'indexSha256' | 'indexBytes'>
}

type Counts = { chunks: number; dataBytes: number; newChunks: number; newStoredBytes: number }

export class BackupWriter implements AsyncDisposable {
  readonly id: BackupId
  readonly #deps: WriterDeps
  readonly #disks: OpenDisk[] = []
  readonly #files: ManifestFile[] = []
  readonly #trees: TreesWriter
  #chunks: ChunkStore | undefined
  #state: 'open' | 'committed' | 'aborted' = 'open'

  /** For `Datastore.begin`. */
  constructor(deps: WriterDeps) {
    this.id = deps.id
    this.#deps = deps
    this.#trees = new TreesWriter(deps, () => this.#openChunks())
  }

  /**
   * Reads a disk to its end. Returns what the manifest will say of it.
   * @throws Fault `exhausted` when the datastore is full, `aborted` by the signal; then `abort` the writer
   */
  async addDisk(name: string, source: BlockSource, options: AddDiskOptions = {}): Promise<OpenDisk['facts']> {
    this.#checkName(name, diskNamePattern)
    const { sizeBytes } = source
    if (sizeBytes > diskMaximumBytes) throw new Fault('too-large', `disk ${name} has ${sizeBytes} bytes, too many`)
    const chunks = await this.#openChunks()
    const index = await IndexWriter.create(join(this.#deps.directory, 'backup', `${name}.index`), sizeBytes)
    try {
      const tree = new TreeDigest(sizeBytes)
      const counts = await this.#readDisk(name, source, { index, tree, chunks }, options)
      const facts = { name, sizeBytes, digest: tree.end(), ...counts }
      this.#disks.push({ index, facts })
      return facts
    } catch (cause) {
      await index.discard()
      throw cause
    }
  }

  /**
   * Reads a tree of files. What has not changed since the guest's last backup, or since `readAheadTree`, is not read.
   * @throws Fault `exhausted` when the datastore is full, `aborted` by the signal; then `abort` the writer
   */
  async addTree(name: string, source: TreeSource, options: AddTreeOptions = {}): Promise<AddedTree> {
    this.#checkName(name, diskNamePattern)
    return this.#trees.add(name, source, options)
  }

  /**
   * A first pass beside the running guest: its content is stored, so that the `addTree` that follows, under freeze or
   * after the stop, is short. May be done again; the last one counts.
   */
  async readAheadTree(name: string, source: TreeSource, options: AddTreeOptions = {}): Promise<TreeCounts> {
    this.#checkName(name, diskNamePattern)
    return this.#trees.readAhead(name, source, options)
  }

  /** Stores a small file with the backup: a guest's config, a log. */
  async addFile(name: string, content: Uint8Array | string): Promise<void> {
    this.#checkName(name, storedFilePattern)
    const bytes = typeof content === 'string' ? Buffer.from(content) : content
    if (bytes.length > storedFileMaximumBytes) throw new Fault('too-large', `file ${name} has ${bytes.length} bytes`)
    await writeFileAtomic(join(this.#deps.directory, 'backup', 'files', name), bytes)
    this.#files.push({ name, sha256: digestText(bytes), sizeBytes: bytes.length })
  }

  /**
   * Makes the backup visible, for good.
   * @throws Fault `conflict` when a backup of this name has appeared meanwhile, `exhausted`
   */
  async commit(
    facts: { readonly [key: string]: Json | undefined } = {},
    options: CommitOptions = {},
  ): Promise<Manifest> {
    if (this.#state !== 'open') throw new Error(`the backup is ${this.#state}`)
    const packs = this.#chunks
    await packs?.finish()
    const disks: ManifestDisk[] = []
    for (const { index, facts: disk } of this.#disks) {
      // Without a chunk store there are no disks.
      const file = packs && (await index.finish(packs.packs))
      if (file) disks.push({ ...disk, indexSha256: file.sha256, indexBytes: file.sizeBytes })
    }
    const trees = packs && (await this.#trees.finish(packs.packs))
    const hasTrees = trees !== undefined && trees.length > 0
    const manifest: Manifest = {
      // Versions that know no trees go on reading what has none.
      format: hasTrees ? treesVersion : formatVersion,
      type: this.id.type,
      id: this.id.id,
      time: this.id.time,
      pointInTime: new Date(options.pointInTimeMs ?? this.id.time * 1000).toISOString(),
      finished: Math.max(this.id.time, Math.floor(this.#deps.clock.now() / 1000)),
      disks,
      ...(hasTrees ? { trees } : {}),
      files: this.#files,
      facts,
    }
    if (options.marks) await writeMarks(this.#deps.layout, this.id, options.marks)
    await this.#publish(manifest)
    this.#state = 'committed'
    this.#deps.held.release()
    await rm(this.#deps.directory, { recursive: true, force: true })
    return manifest
  }

  /**
   * Gives everything back. Harmless after a commit. Packs already in place are left to the sweep: another
   * writer may just have stored the same one. While others are at work the empty directory stays behind
   * and tells the next opener to sweep.
   */
  async abort(): Promise<void> {
    if (this.#state !== 'open') return
    this.#state = 'aborted'
    const { directory, held, sweep } = this.#deps
    for (const { index } of this.#disks) await index.discard()
    await this.#trees.discard()
    await this.#chunks?.discard()
    await rm(join(directory, 'backup'), { recursive: true, force: true })
    held.release()
    await sweep()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.abort()
  }

  async #openChunks(): Promise<ChunkStore> {
    this.#chunks ??= await ChunkStore.open(this.id, this.#deps)
    return this.#chunks
  }

  async #readDisk(
    name: string,
    source: BlockSource,
    into: { index: IndexWriter; tree: TreeDigest; chunks: ChunkStore },
    { onProgress, signal, rateBytesPerSecond, readsAhead }: AddDiskOptions,
  ): Promise<Counts> {
    const counts: Counts = { chunks: 0, dataBytes: 0, newChunks: 0, newStoredBytes: 0 }
    const { clock } = this.#deps
    const startedMs = clock.monotonic()
    let read = 0
    for await (const region of readSource(source, readsAhead)) {
      if (signal?.aborted) throw new Fault('aborted', `the backup of disk ${name} was interrupted`)
      await this.#storeRegion(region, into, counts)
      read += region.bytes.length
      const doneBytes = region.offset + region.bytes.length
      onProgress?.({
        disk: name,
        doneBytes,
        sizeBytes: source.sizeBytes,
        readBytes: read,
        storedBytes: counts.newStoredBytes,
      })
      const aheadMs = rateBytesPerSecond ? (read / rateBytesPerSecond) * 1000 - (clock.monotonic() - startedMs) : 0
      if (aheadMs > 0) await clock.sleep(aheadMs, signal)
    }
    return counts
  }

  async #storeRegion(
    { offset, bytes }: FilledRegion,
    { index, tree, chunks }: { index: IndexWriter; tree: TreeDigest; chunks: ChunkStore },
    counts: Counts,
  ): Promise<void> {
    for (let at = 0; at < bytes.length; at += chunkBytes) {
      const plain = bytes.subarray(at, at + chunkBytes)
      if (isZero(plain)) continue
      const digest = digestOf(plain)
      const { location, storedBytes } = await chunks.put(plain, digest)
      const position = (offset + at) / chunkBytes
      await index.set(position, digest, location)
      tree.add(position, digest)
      counts.chunks += 1
      counts.dataBytes += plain.length
      counts.newChunks += storedBytes > 0 ? 1 : 0
      counts.newStoredBytes += storedBytes
    }
  }

  async #publish(manifest: Manifest): Promise<void> {
    const { layout, directory } = this.#deps
    const [from, to] = [join(directory, 'backup'), layout.backup(this.id)]
    try {
      await syncDirectory(join(from, 'files'))
      await writeFileAtomic(join(from, 'manifest.json'), printManifest(manifest)) // Syncs the directory, too.
      await makeDurable(dirname(to), layout.backups())
      await rename(from, to)
      await syncDirectory(dirname(to))
    } catch (cause) {
      if (codeOf(cause) === 'ENOTEMPTY' || codeOf(cause) === 'EEXIST') {
        throw new Fault('conflict', `backup ${printBackupId(this.id)} already exists`, { cause })
      }
      throw asFileFault(cause, to)
    }
  }

  #checkName(name: string, pattern: RegExp): void {
    if (this.#state !== 'open') throw new Error(`the backup is ${this.#state}`)
    if (!pattern.test(name)) throw new Fault('invalid', `'${name}' cannot be the name of a part of a backup`)
    const disks = this.#disks.map((disk) => disk.facts.name)
    const names = [...this.#files.map((file) => file.name), ...disks, ...this.#trees.names]
    if (names.includes(name)) throw new Fault('conflict', `the backup has a part called ${name} already`)
    if (names.length >= disksMaximum) throw new Fault('too-large', `the backup has more than ${disksMaximum} parts`)
  }
}

/** Creates directories down to `path`; each entry survives power loss. */
async function makeDurable(path: string, root: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 })
  for (let at = path; at !== root; at = dirname(at)) await syncDirectory(dirname(at))
}
