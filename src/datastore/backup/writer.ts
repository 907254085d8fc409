/**
 * Writes one backup: cuts disks into chunks, stores those nobody has yet, and commits by putting its manifest.
 *
 * Compression runs where it is called: at the size of a chunk the threads of `node:zlib` cost more processor time (a
 * context per call) than they save.
 */
import { seconds } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { type AddedChanges, addChanges } from './add-changes.ts'
import { type AddedWhole, addWhole, type DiskBefore, diskBefore, type WholeDisk } from './add-whole.ts'
import { type Base, baseOf, type Since } from './built-upon.ts'
import type { BlockSource } from './block-source.ts'
import { ChunkWriter } from '../chunks/chunk-writer.ts'
import type { OpenDatastore } from '../datastore.ts'
import {
  diskMaximumBytes,
  diskNamePattern,
  fileMaximumBytes,
  kinds,
  partsMaximum,
  storedFilePattern,
} from '../format.ts'
import type { Lease } from '../places/lease.ts'
import {
  type Facts,
  type ManifestBody,
  type ManifestDisk,
  type ManifestFile,
  manifestName,
  printManifest,
  type Reading,
} from '../points/manifest.ts'
import { type Marks, putFirstMarks } from '../points/marks.ts'
import { isThere } from '../places/place.ts'
import { mergeSegments } from '../tidy/merge-segments.ts'
import type { AddTreeOptions, TreeCounts } from '../tree/pass.ts'
import type { TreeSource } from '../tree/source.ts'
import type { Catalogue } from '../tree/catalogue.ts'
import type { AddedTree, CopiedTree, TreesWriter } from './trees.ts'
import { isSameGuest, printPoint, type RestorePoint } from '../point.ts'

export interface DiskProgress {
  readonly disk: string
  /** Position on the disk, holes included. */
  readonly doneBytes: number
  readonly sizeBytes: number
  /** Read so far: holes excluded. */
  readonly readBytes: number
  readonly storedBytes: number
}

export interface AddDiskOptions {
  readonly onProgress?: ((progress: DiskProgress) => void) | undefined
  readonly signal?: AbortSignal | undefined
  /** Upper bound of what is read from the source. */
  readonly rateBytesPerSecond?: number | undefined
  /** Reads of the source under way at once. */
  readonly readsAhead?: number | undefined
  /** Since when the source's extents tell what changed: only that is read. Absent: all of the disk is. */
  readonly since?: Since | undefined
  /** Of a record of changes that begins where this backup reads, to be remembered. */
  readonly record?: string | undefined
  /** Chunks called unchanged that are read all the same, of 1. */
  readonly auditedShare?: number | undefined
}

export interface CommitOptions {
  /** The moment the data is from. Default: the time in the backup's name. */
  readonly pointInTimeMs?: number | undefined
  /** Notes and protection, in force from the moment the backup is visible. */
  readonly marks?: Marks | undefined
  readonly facts?: Facts | undefined
  /** When it was complete, in seconds since 1970. Default: now. */
  readonly finished?: number | undefined
}

interface Belongings {
  readonly lease: Lease
  readonly chunks: ChunkWriter
  readonly earlier: readonly RestorePoint[]
  /** The last of them. */
  readonly before: ManifestBody | undefined
  /** Disposed of with the writer. */
  readonly closes: AsyncDisposable | undefined
}

type Added = AddedChanges | (AddedWhole & { readonly reading: Reading })

export class BackupWriter implements AsyncDisposable {
  readonly point: RestorePoint
  /** Earlier backups of the same guest, oldest first. */
  readonly earlier: readonly RestorePoint[]
  readonly #open: OpenDatastore
  readonly #lease: Lease
  readonly #chunks: ChunkWriter
  /** The last backup of the same guest: most of its chunks will be this one's. */
  readonly #before: ManifestBody | undefined
  readonly #closes: AsyncDisposable | undefined
  readonly #disks: ManifestDisk[] = []
  readonly #files: ManifestFile[] = []
  #trees: TreesWriter | undefined
  #state: 'open' | 'committed' | 'aborted' = 'open'

  private constructor(
    open: OpenDatastore,
    point: RestorePoint,
    { lease, chunks, before, earlier, closes }: Belongings,
  ) {
    this.#open = open
    this.point = point
    this.earlier = earlier
    this.#lease = lease
    this.#chunks = chunks
    this.#before = before
    this.#closes = closes
  }

  /** For `OpenDatastore.begin`. */
  static async begin(
    open: OpenDatastore,
    point: RestorePoint,
    { lease, level, closes }: Pick<Belongings, 'lease' | 'closes'> & { readonly level: number },
  ): Promise<BackupWriter> {
    const points = await open.datastore.points()
    if (points.some((other) => printPoint(other) === printPoint(point))) throw existsAlready(point)
    const { place, deps } = open.datastore
    const { keyring, index } = open
    const chunks = new ChunkWriter({ place, keyring, index, random: deps.random, lease, level })
    // Whoever cannot read looks up every chunk, and reads every file.
    const earlier = keyring.canRead ? points.filter((other) => isSameGuest(other, point)) : []
    const last = earlier.at(-1)
    const before = last && (await bodyIfReadable(open, last))
    return new BackupWriter(open, point, { lease, chunks, before, earlier, closes })
  }

  /**
   * Reads a disk to its end, or what changed of it. Returns what the manifest will say of it. What cannot be built upon
   * is not, and all of the disk is read; so it is when the record of changes is caught lying, which `reading.hits` tells.
   * @throws Fault `exhausted` when the datastore is full, `aborted` by the signal; then `abort` the writer
   */
  async addDisk(name: string, source: BlockSource, options: AddDiskOptions = {}): Promise<ManifestDisk> {
    this.#checkName(name, diskNamePattern)
    const { sizeBytes } = source
    if (sizeBytes > diskMaximumBytes) throw new Fault('too-large', `disk ${name} has ${sizeBytes} bytes, too many`)
    const { since, record } = options
    const base = since ? await baseOf(this.#open, since, sizeBytes) : undefined
    const added =
      base && 'map' in base
        ? await this.#addChanges(name, source, base, options)
        : await this.#addWhole(name, source, options, base && { reading: { how: 'scan', reason: base.reason } })
    const { map, prints, counts, reading } = added
    const disk: ManifestDisk = {
      name,
      sizeBytes,
      digest: this.#open.keyring.digestOf(sizeBytes, map.root).toString('hex'),
      root: map.chunks.map((id) => id.toString('hex')),
      ...(prints && { prints: prints.chunks.map((id) => id.toString('hex')) }),
      ...counts,
      reading,
      ...(record === undefined ? {} : { record }),
    }
    this.#disks.push(disk)
    return disk
  }

  async #addWhole(
    name: string,
    source: BlockSource,
    options: AddDiskOptions,
    { reading = { how: 'scan' }, mayTakeOver = true }: { reading?: Reading; mayTakeOver?: boolean } = {},
  ): Promise<AddedWhole & { readonly reading: Reading }> {
    const [open, chunks] = [this.#open, this.#chunks]
    const before = mayTakeOver ? await this.#diskBefore(name) : undefined
    const { readsAhead } = options
    const onRead = this.#onRead(name, source.sizeBytes, options)
    return { ...(await addWhole({ open, chunks, source, before, readsAhead, onRead })), reading }
  }

  async #addChanges(name: string, source: BlockSource, base: Base, options: AddDiskOptions): Promise<Added> {
    const { auditedShare, readsAhead } = options
    const onRead = this.#onRead(name, source.sizeBytes, options)
    const about = { open: this.#open, chunks: this.#chunks, source, base, auditedShare, readsAhead, onRead }
    const added = await addChanges(about)
    if ('map' in added) return added
    return this.#addWhole(name, source, options, { reading: added.refused, mayTakeOver: !added.isContentLost })
  }

  #onRead(name: string, sizeBytes: number, options: AddDiskOptions): WholeDisk['onRead'] {
    const { onProgress, signal } = options
    const keepPace = this.#pace(options)
    return async (doneBytes, readBytes, storedBytes) => {
      if (signal?.aborted) throw new Fault('aborted', `the backup of disk ${name} was interrupted`)
      onProgress?.({ disk: name, doneBytes, sizeBytes, readBytes, storedBytes })
      await keepPace(readBytes)
    }
  }

  /** Waits until as much may have been read. */
  #pace({ rateBytesPerSecond, signal }: AddDiskOptions): (readBytes: number) => Promise<void> {
    const { clock } = this.#open.datastore.deps
    const startedMs = clock.monotonic()
    return async (readBytes) => {
      const aheadMs = rateBytesPerSecond ? (readBytes / rateBytesPerSecond) * 1000 - (clock.monotonic() - startedMs) : 0
      if (aheadMs > 0) await clock.sleep(aheadMs, signal)
    }
  }

  /** Id of the datastore. */
  get datastore(): string {
    return this.#open.datastore.facts.id
  }

  /**
   * Reads a tree of files. What has not changed since the guest's last backup, or since `readAheadTree`, is not read.
   * @throws Fault `exhausted` when the datastore is full, `aborted` by the signal; then `abort` the writer
   */
  async addTree(name: string, source: TreeSource, options: AddTreeOptions = {}): Promise<AddedTree> {
    this.#checkName(name, diskNamePattern)
    return (await this.#treesWriter()).add(name, source, options)
  }

  /**
   * A first pass beside the running guest: its content is stored, so that the `addTree` that follows, under freeze or
   * after the stop, is short. May be done again; the last one counts.
   */
  async readAheadTree(name: string, source: TreeSource, options: AddTreeOptions = {}): Promise<TreeCounts> {
    this.#checkName(name, diskNamePattern)
    return (await this.#treesWriter()).readAhead(name, source, options)
  }

  /** Machines have none, and need not load what writes them. */
  async #treesWriter(): Promise<TreesWriter> {
    const { TreesWriter: Writer } = await import('./trees.ts')
    const [open, point, chunks, earlier] = [this.#open, this.point, this.#chunks, this.earlier]
    return (this.#trees ??= new Writer({ open, point, chunks, earlier }))
  }

  get #chunkBytes(): number {
    return this.#open.datastore.facts.chunkBytes
  }

  async #diskBefore(name: string): Promise<DiskBefore | undefined> {
    const [disk, last] = [this.#before?.disks.find((one) => one.name === name), this.earlier.at(-1)]
    if (!disk || !last) return undefined
    try {
      if (await this.#open.datastore.isMarkedDamaged(last)) return undefined
      return await diskBefore(this.#open, disk)
    } catch (fault) {
      return this.#without(fault)
    }
  }

  /** A damaged last backup only saves nothing. */
  #without(fault: unknown): undefined {
    if (!(fault instanceof Fault)) throw fault
    this.#open.datastore.deps.log.warn('a damaged backup is not built upon', {
      backup: printPoint(this.point),
      cause: fault,
    })
    return undefined
  }

  /** Takes a tree over from another datastore. @throws Fault `damaged` when it cannot be read there */
  async copyTree(facts: CopiedTree, from: Catalogue): Promise<void> {
    this.#checkName(facts.name, diskNamePattern)
    await (await this.#treesWriter()).copy(facts, from)
  }

  /** Stores a small file with the backup: a guest's config, a log. */
  async addFile(name: string, content: Uint8Array | string): Promise<void> {
    this.#checkName(name, storedFilePattern)
    const bytes = typeof content === 'string' ? Buffer.from(content) : content
    if (bytes.length > fileMaximumBytes) throw new Fault('too-large', `file ${name} has ${bytes.length} bytes`)
    const chunks: string[] = []
    for (let at = 0; at < bytes.length; at += this.#chunkBytes) {
      const part = bytes.subarray(at, at + this.#chunkBytes)
      const id = this.#open.keyring.idOf(kinds.content, part)
      await this.#chunks.put(id, kinds.content, part)
      chunks.push(id.toString('hex'))
    }
    this.#files.push({ name, sizeBytes: bytes.length, chunks })
  }

  /**
   * Makes the backup visible, for good.
   * @throws Fault `conflict` when a backup of this name has appeared meanwhile, `exhausted`; `unavailable` when others took the
   *   writer for dead meanwhile
   */
  async commit({ pointInTimeMs, marks, facts = {}, finished }: CommitOptions = {}): Promise<ManifestBody> {
    if (this.#state !== 'open') throw new Error(`the backup is ${this.#state}`)
    await this.#chunks.flush()
    const { place, deps } = this.#open.datastore
    const body: ManifestBody = { disks: this.#disks, trees: this.#trees?.trees ?? [], files: this.#files, facts }
    const head = {
      point: this.point,
      pointInTime: new Date(pointInTimeMs ?? this.point.time * 1000).toISOString(),
      finished: finished ?? Math.max(this.point.time, seconds(deps.clock)),
    }
    // Whose backup was there first has said what is to be said of it.
    if (marks && (await isThere(place, manifestName(this.point)))) throw existsAlready(this.point)
    if (marks) await putFirstMarks({ place, log: deps.log }, this.point, marks)
    const text = printManifest(this.#open.keyring, deps.random, head, body)
    await this.#lease.requireHeld()
    if (!(await place.put(manifestName(this.point), Buffer.from(text)))) throw existsAlready(this.point)
    this.#state = 'committed'
    await this.#lease[Symbol.asyncDispose]()
    if (place.addsOnly === true || !this.#open.keyring.canRead) return body
    await this.#tidy()
    return body
  }

  /** The backup is there: what fails now can be done after another one. */
  async #tidy(): Promise<void> {
    const { datastore } = this.#open
    const { place, deps } = datastore
    try {
      await using tidy = await datastore.tryTidy()
      if (tidy) await mergeSegments(this.#open, tidy)
    } catch (fault) {
      if (!(fault instanceof Fault)) throw fault
      deps.log.warn('the index was not tidied up', { datastore: place.label, cause: fault })
    }
  }

  /** Harmless after a commit. What was put already is left to the collector of garbage. */
  async abort(): Promise<void> {
    if (this.#state !== 'open') return
    this.#state = 'aborted'
    await this.#chunks[Symbol.asyncDispose]()
    await this.#lease[Symbol.asyncDispose]()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.abort()
    await this.#closes?.[Symbol.asyncDispose]()
  }

  #checkName(name: string, pattern: RegExp): void {
    if (this.#state !== 'open') throw new Error(`the backup is ${this.#state}`)
    if (!pattern.test(name)) throw new Fault('invalid', `'${name}' cannot be the name of a part of a backup`)
    const names = [...this.#files, ...this.#disks, ...(this.#trees?.trees ?? [])].map((part) => part.name)
    if (names.includes(name)) throw new Fault('conflict', `the backup has a part called ${name} already`)
    if (names.length >= partsMaximum) throw new Fault('too-large', `the backup has more than ${partsMaximum} parts`)
  }
}

async function bodyIfReadable(open: OpenDatastore, point: RestorePoint): Promise<ManifestBody | undefined> {
  try {
    return await open.body(point)
  } catch (fault) {
    if (!(fault instanceof Fault)) throw fault
    open.datastore.deps.log.warn('a damaged backup is not built upon', { backup: printPoint(point), cause: fault })
    return undefined
  }
}

function existsAlready(point: RestorePoint): Fault {
  return new Fault('conflict', `backup ${printPoint(point)} already exists`)
}
