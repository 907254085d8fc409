/**
 * Writes one backup: cuts disks into chunks, stores those nobody has yet, and commits by putting its manifest.
 *
 * Compression runs where it is called: at the size of a chunk the threads of `node:zlib` cost more processor time (a
 * context per call) than they save.
 */
import { rm } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import { isZero } from '#base/bytes.ts'
import type { BlockSource } from './block-source.ts'
import { readSource } from './read-ahead.ts'
import { ChunkWriter } from './chunk-writer.ts'
import type { OpenDatastore } from './datastore.ts'
import { DiskMap, MapWriter } from './disk-map.ts'
import {
  diskMaximumBytes,
  diskNamePattern,
  fileMaximumBytes,
  kinds,
  partsMaximum,
  pieceEntries,
  shortIdBytes,
  storedFilePattern,
} from './format.ts'
import type { Lease } from './lease.ts'
import {
  type Facts,
  type ManifestBody,
  type ManifestDisk,
  type ManifestFile,
  manifestName,
  printManifest,
} from './manifest.ts'
import { type Marks, marksName, printMarks } from './marks.ts'
import { mergeSegments } from './merge.ts'
import { isSameGuest, printPoint, type RestorePoint } from './point.ts'

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
}

export interface CommitOptions {
  /** The moment the data is from. Default: the time in the backup's name. */
  readonly pointInTimeMs?: number | undefined
  /** Notes and protection, in force from the moment the backup is visible. */
  readonly marks?: Marks | undefined
  readonly facts?: Facts | undefined
}

type Counts = { chunks: number; dataBytes: number; newChunks: number; newStoredBytes: number }

export class BackupWriter implements AsyncDisposable {
  readonly point: RestorePoint
  readonly #open: OpenDatastore
  readonly #lease: Lease
  readonly #chunks: ChunkWriter
  /** The last backup of the same guest: most of its chunks will be this one's. */
  readonly #before: ManifestBody | undefined
  readonly #disks: ManifestDisk[] = []
  readonly #files: ManifestFile[] = []
  #state: 'open' | 'committed' | 'aborted' = 'open'

  private constructor(
    open: OpenDatastore,
    point: RestorePoint,
    { lease, chunks, before }: { lease: Lease; chunks: ChunkWriter; before: ManifestBody | undefined },
  ) {
    this.#open = open
    this.point = point
    this.#lease = lease
    this.#chunks = chunks
    this.#before = before
  }

  /** For `OpenDatastore.begin`. */
  static async begin(
    open: OpenDatastore,
    point: RestorePoint,
    { lease, level }: { readonly lease: Lease; readonly level: number },
  ): Promise<BackupWriter> {
    const points = await open.datastore.points()
    if (points.some((other) => printPoint(other) === printPoint(point))) throw existsAlready(point)
    const { place, deps } = open.datastore
    const { keyring, index } = open
    const chunks = new ChunkWriter({ place, keyring, index, random: deps.random, level })
    // Whoever cannot read looks up every chunk.
    const last = keyring.canRead ? points.filter((other) => isSameGuest(other, point)).at(-1) : undefined
    return new BackupWriter(open, point, { lease, chunks, before: last && (await bodyIfReadable(open, last)) })
  }

  /**
   * Reads a disk to its end. Returns what the manifest will say of it.
   * @throws Fault `exhausted` when the datastore is full, `aborted` by the signal; then `abort` the writer
   */
  async addDisk(name: string, source: BlockSource, options: AddDiskOptions = {}): Promise<ManifestDisk> {
    this.#checkName(name, diskNamePattern)
    const { sizeBytes } = source
    if (sizeBytes > diskMaximumBytes) throw new Fault('too-large', `disk ${name} has ${sizeBytes} bytes, too many`)
    const count = Math.ceil(sizeBytes / this.#chunkBytes)
    const before = await this.#mapBefore(name)
    const map = new MapWriter(this.#open.keyring, this.#chunks, count, before)
    const counts = await this.#readDisk(name, source, { map, before }, options)
    const { root, chunks } = await map.finish()
    const digest = this.#open.keyring.digestOf(sizeBytes, root).toString('hex')
    const disk = { name, sizeBytes, digest, root: chunks.map((id) => id.toString('hex')), ...counts }
    this.#disks.push(disk)
    return disk
  }

  get #chunkBytes(): number {
    return this.#open.datastore.facts.chunkBytes
  }

  async #mapBefore(name: string): Promise<DiskMap | undefined> {
    const disk = this.#before?.disks.find((one) => one.name === name)
    if (!disk) return undefined
    try {
      const count = Math.ceil(disk.sizeBytes / this.#chunkBytes)
      return await DiskMap.open(
        this.#open.chunks,
        count,
        disk.root.map((id) => Buffer.from(id, 'hex')),
      )
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

  async #readDisk(
    name: string,
    source: BlockSource,
    { map, before }: { map: MapWriter; before: DiskMap | undefined },
    { onProgress, signal, rateBytesPerSecond }: AddDiskOptions,
  ): Promise<Counts> {
    const counts: Counts = { chunks: 0, dataBytes: 0, newChunks: 0, newStoredBytes: 0 }
    const { clock } = this.#open.datastore.deps
    const startedMs = clock.monotonic()
    const { keyring } = this.#open
    let read = 0
    for await (const { offset, bytes } of readSource(source, undefined, this.#chunkBytes)) {
      if (signal?.aborted) throw new Fault('aborted', `the backup of disk ${name} was interrupted`)
      for (let at = 0; at < bytes.length; at += this.#chunkBytes) {
        const content = bytes.subarray(at, at + this.#chunkBytes)
        if (isZero(content)) continue
        const id = keyring.idOf(kinds.content, content)
        const position = (offset + at) / this.#chunkBytes
        const isKnown = await this.#isAsBefore(before, position, id)
        const stored = isKnown ? 0 : await this.#chunks.put(id, kinds.content, content)
        await map.set(position, id)
        counts.chunks += 1
        counts.dataBytes += content.length
        counts.newChunks += stored > 0 ? 1 : 0
        counts.newStoredBytes += stored
      }
      read += bytes.length
      const doneBytes = offset + bytes.length
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

  /** The chunk is in the last backup at the same place: then it is there, and needs no looking up. */
  async #isAsBefore(before: DiskMap | undefined, position: number, id: Buffer): Promise<boolean> {
    const { index } = this.#open
    // Where a pack is known to be damaged, a backup mends it: nothing is taken for there unseen.
    if (!before || position >= before.chunks || index.isCondemned(id) || index.hasSuspects) return false
    const { ids } = await before.piece(Math.floor(position / pieceEntries))
    const at = (position % pieceEntries) * shortIdBytes
    return ids.compare(id, 0, shortIdBytes, at, at + shortIdBytes) === 0
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
   * @throws Fault `conflict` when a backup of this name has appeared meanwhile, `exhausted`
   */
  async commit({ pointInTimeMs, marks, facts = {} }: CommitOptions = {}): Promise<ManifestBody> {
    if (this.#state !== 'open') throw new Error(`the backup is ${this.#state}`)
    await this.#chunks.flush()
    const { place, deps } = this.#open.datastore
    const body: ManifestBody = { disks: this.#disks, files: this.#files, facts }
    const head = {
      point: this.point,
      pointInTime: new Date(pointInTimeMs ?? this.point.time * 1000).toISOString(),
      finished: Math.max(this.point.time, Math.floor(deps.clock.now() / 1000)),
    }
    if (marks) await place.replace(marksName(this.point), Buffer.from(printMarks(marks)))
    const text = printManifest(this.#open.keyring, deps.random, head, body)
    if (!(await place.put(manifestName(this.point), Buffer.from(text)))) throw existsAlready(this.point)
    this.#state = 'committed'
    await this.#lease[Symbol.asyncDispose]()
    if (place.addsOnly === true || !this.#open.keyring.canRead) return body
    await this.#tidy()
    return body
  }

  /** The backup is there: what fails now can be done after another one. */
  async #tidy(): Promise<void> {
    const { datastore, index, keyring } = this.#open
    const { place, deps } = datastore
    try {
      await using tidy = await datastore.tryTidy()
      if (tidy) await mergeSegments({ place, keyring, random: deps.random }, index)
    } catch (fault) {
      if (!(fault instanceof Fault)) throw fault
      deps.log.warn('the index was not tidied up', { datastore: place.label, cause: fault })
    }
  }

  /** Harmless after a commit. What was put already is left to the collector of garbage. */
  async abort(): Promise<void> {
    if (this.#state !== 'open') return
    this.#state = 'aborted'
    await this.#chunks.discard((path) => rm(path, { force: true }))
    await this.#lease[Symbol.asyncDispose]()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.abort()
  }

  #checkName(name: string, pattern: RegExp): void {
    if (this.#state !== 'open') throw new Error(`the backup is ${this.#state}`)
    if (!pattern.test(name)) throw new Fault('invalid', `'${name}' cannot be the name of a part of a backup`)
    const names = [...this.#files, ...this.#disks].map((part) => part.name)
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
