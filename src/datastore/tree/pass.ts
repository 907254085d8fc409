/**
 * One pass through a tree: every entry becomes a record of the catalogue, and content nobody has yet goes into packs.
 *
 * An entry whose size, times and inode are those of an earlier catalogue is taken over from there, without being read.
 * The kernel stamps a change with the time of its last tick, so a file that is changed twice within one tick, and read
 * in between, looks the same afterwards. Therefore what changed shortly before the pass began, or later, is never taken
 * over by the next one: it is kept without its inode. The source is settled first, as a program that has a file mapped
 * leaves a time only with its first write after that.
 *
 * In memory are a piece, the piece of the earlier catalogue beside it, and a chunk of small files put together.
 */
import { closeSync, fstatSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { keptRate } from '#base/kept-rate.ts'
import { dataRangesOf } from '#host/files/file-extras.ts'
import type { Base, BasePiece } from './base.ts'
import type { TreeKey } from './catalogue.ts'
import { Content, type ContentStore, sharedBytes } from './content.ts'
import { PieceBuilder } from './piece.ts'
import {
  at,
  below,
  type EntryRecord,
  type Extent,
  extentBytes,
  extentsFrom,
  extentsMaximum,
  identityBytes,
  inlineAttributesBytes,
  kindAt,
  readUInt64,
  timeAt,
  writeUInt64,
} from './record.ts'
import { shown, type SourceEntry, type TreeSource } from './source.ts'

export interface TreeProgress {
  readonly tree: string
  readonly entries: number
  /** Content of the entries so far, read or taken over. */
  readonly dataBytes: number
  readonly readBytes: number
  /** Added to packs so far. */
  readonly storedBytes: number
}

export interface AddTreeOptions {
  readonly onProgress?: (progress: TreeProgress) => void
  readonly signal?: AbortSignal | undefined
  /** Upper bound of what is read from files. */
  readonly rateBytesPerSecond?: number | undefined
  /** Told of a file that was written to, or went, while it was read, so that it is kept as it was at no one moment. */
  readonly onTorn?: (path: string) => void
}

export interface TreeCounts {
  entries: number
  files: number
  /** Content of files, without holes, once for all names of a file. */
  dataBytes: number
  readBytes: number
  /** Files taken over without being read. */
  reusedFiles: number
  newChunks: number
  newStoredBytes: number
  highestUid: number
  highestGid: number
}

/** Takes each piece when it is complete. */
export type PieceSink = (key: TreeKey, bytes: Buffer) => Promise<void>

export interface PassNeeds {
  readonly name: string
  readonly source: TreeSource
  readonly chunks: ContentStore
  readonly base: Base | undefined
  readonly sink: PieceSink
  /** What changed since, in milliseconds since 1970, is not taken over by the next pass. */
  readonly trustedUntilMs: number
  readonly clock: Clock
}

/** Longer than any tick; and the granularity of file systems that keep whole seconds. */
const [tickMs, coarseMs] = [20, 2_000]
const turnEveryMs = 25

export class TreePass {
  readonly counts: TreeCounts = {
    entries: 0,
    files: 0,
    dataBytes: 0,
    readBytes: 0,
    reusedFiles: 0,
    newChunks: 0,
    newStoredBytes: 0,
    highestUid: 0,
    highestGid: 0,
  }
  readonly #needs: PassNeeds
  readonly #options: AddTreeOptions
  readonly #builder = new PieceBuilder()
  readonly #identity = Buffer.alloc(identityBytes)
  readonly #content: Content
  #folder = ''
  /** First entry of the piece in the making. */
  #first: TreeKey | undefined
  #placedFolder: string | undefined
  /** Numbers in this piece of the chunks of a piece of the base. */
  #map = { of: undefined as BasePiece | undefined, numbers: new Int32Array(0) }
  readonly #keepRate: (allBytes: number) => Promise<void>
  #turnMs = 0

  constructor(needs: PassNeeds, options: AddTreeOptions) {
    this.#needs = needs
    this.#options = options
    this.#keepRate = keptRate(options.rateBytesPerSecond, { clock: needs.clock, signal: options.signal })
    this.#content = new Content(needs.chunks, this.#builder, this.counts)
  }

  async run(): Promise<TreeCounts> {
    this.#turnMs = this.#needs.clock.monotonic()
    for (const folder of this.#needs.source.folders()) {
      this.#folder = folder.path
      this.#needs.base?.enter(folder.path)
      for (const entry of folder.entries()) {
        if (this.#builder.isFull) await this.#endPiece()
        await this.#add(entry)
        if (this.#needs.clock.monotonic() - this.#turnMs > turnEveryMs) await this.#turn()
      }
      if (this.#builder.endsWithFolder) await this.#endPiece()
    }
    await this.#endPiece()
    await this.#turn()
    return this.counts
  }

  async #add(entry: SourceEntry): Promise<void> {
    const { counts } = this
    if (!(await this.#takeOver(entry)) && !(await this.#store(entry))) return
    counts.entries += 1
    if (entry.kind === 'file') counts.files += 1
    counts.highestUid = Math.max(counts.highestUid, entry.uid)
    counts.highestGid = Math.max(counts.highestGid, entry.gid)
  }

  /** Lets others of this process run, tells how far it is, and keeps to the rate. */
  async #turn(): Promise<void> {
    const { name, clock } = this.#needs
    const { onProgress, signal } = this.#options
    if (signal?.aborted) throw new Fault('aborted', `the backup of ${name} was interrupted`)
    const { entries, dataBytes, readBytes, newStoredBytes: storedBytes } = this.counts
    onProgress?.({ tree: name, entries, dataBytes, readBytes, storedBytes })
    await this.#keepRate(readBytes)
    await nextTurn()
    this.#turnMs = clock.monotonic()
  }

  /** False when it has to be read. */
  async #takeOver(entry: SourceEntry): Promise<boolean> {
    const { base } = this.#needs
    if (base === undefined || entry.kind === 'hard link') return false
    let from = base.seek(entry.name)
    while (from === 'unread') {
      await base.load()
      from = base.seek(entry.name)
    }
    if (from === 'absent' || !base.isUnchanged(from, entry) || !this.#copy(base, from, entry)) return false
    for (let next = base.following(); next !== 'absent';) {
      if (next === 'unread') {
        await base.load()
        next = base.continued()
        continue
      }
      const { bytes } = base.current?.piece ?? {}
      if (bytes && kindAt(bytes, next) === 'more' && this.#builder.isFull) await this.#endPiece()
      if (bytes && !this.#copy(base, next, entry)) {
        // It is the same content; what a damaged pack held of it is read again.
        await this.#storeRest(entry, readUInt64(bytes, extentsFrom(bytes, next)))
        return true
      }
      next = base.following()
    }
    if (entry.kind === 'file') this.counts.reusedFiles += 1
    return true
  }

  /** Copies a record of the base, or nothing when a chunk of it cannot be relied upon. */
  #copy(base: Base, from: number, { name, uid, gid }: SourceEntry): boolean {
    const { current } = base
    if (current === undefined) return false
    const { bytes, chunks } = current.piece
    if (this.#map.of !== current) this.#map = { of: current, numbers: new Int32Array(chunks).fill(-1) }
    const { numbers } = this.#map
    const end = from + bytes.readUInt32LE(from)
    const first = extentsFrom(bytes, from)
    let dataBytes = 0
    for (let place = first; place < end; place += extentBytes) {
      const chunk = bytes.readUInt32LE(place + 8)
      dataBytes += bytes.readUInt32LE(place + 16)
      if (numbers[chunk] !== -1) continue
      const held = current.chunk(chunk)
      if (held === undefined) return false
      numbers[chunk] = this.#builder.addChunk(held)
    }
    this.#begin(name, first < end && kindAt(bytes, from) === 'more' ? readUInt64(bytes, first) : 0)
    this.#builder.copyRecord(bytes, from, { uid, gid }, (chunk) => numbers[chunk] ?? 0)
    if (kindAt(bytes, from) !== 'attributes') this.counts.dataBytes += dataBytes
    return true
  }

  /** False when it has vanished. */
  async #store(entry: SourceEntry): Promise<boolean> {
    if (entry.kind === 'file' && entry.sizeBytes > 0) return this.#storeFile(entry)
    const target = entry.target()
    if (target === undefined) return false
    await this.#addEntry(entry, entry.attributes(), [], target)
    return true
  }

  async #storeFile(entry: SourceEntry): Promise<boolean> {
    const fd = entry.open()
    if (fd === undefined) return false
    try {
      const attributes = entry.attributes(fd)
      if (entry.sizeBytes >= sharedBytes || entry.isSparse) {
        await this.#storeContent(entry, fd, attributes)
        if (isTorn(entry, fd)) this.#tellTorn(entry)
      } else {
        const extent = await this.#content.add(fd, 0, entry.sizeBytes)
        const read = extent?.length ?? 0
        if (read < entry.sizeBytes) writeUInt64(entry.identity, read, 0)
        await this.#addEntry(entry, attributes, extent ? [extent] : [])
      }
      return true
    } catch (cause) {
      throw cause instanceof Fault ? cause : readFault(below(this.#folder, entry.name), cause)
    } finally {
      closeSync(fd)
    }
  }

  /** What stands already of the entry is that of a file as long as it was when it was looked at. */
  async #storeRest(entry: SourceEntry, from: number): Promise<void> {
    const { sizeBytes } = entry
    const before = Buffer.from(entry.identity)
    const fd = entry.open()
    try {
      if (fd !== undefined) await this.#storeContent(entry, fd, undefined, { from, sizeBytes })
      const isSame = fd !== undefined && before.equals(entry.identity) && !isTorn(entry, fd)
      if (!isSame) this.#tellTorn(entry)
    } catch (cause) {
      throw cause instanceof Fault ? cause : readFault(below(this.#folder, entry.name), cause)
    } finally {
      if (fd !== undefined) closeSync(fd)
    }
  }

  #tellTorn({ name }: SourceEntry): void {
    this.#options.onTorn?.(shown(below(this.#folder, name)))
  }

  /** @param attributes nothing when the entry itself stands already */
  async #storeContent(
    entry: SourceEntry,
    fd: number,
    attributes: Buffer | undefined,
    { from, sizeBytes }: { readonly from: number; readonly sizeBytes: number } = {
      from: 0,
      sizeBytes: entry.sizeBytes,
    },
  ): Promise<void> {
    let extents: Extent[] = []
    let isBegun = attributes === undefined
    const end = async () => {
      if (!isBegun) await this.#addEntry(entry, attributes ?? nothing, extents)
      else if (extents.length > 0) this.#addMore(entry.name, sizeBytes, extents)
      isBegun = true
      extents = []
      // Before the next chunks are numbered: they have to be in the piece of their record.
      if (this.#builder.isFull) await this.#endPiece()
    }
    const { chunkBytes } = this.#needs.chunks
    for (const { offset, length } of entry.isSparse
      ? dataRangesOf(fd, sizeBytes)
      : [{ offset: 0, length: sizeBytes }]) {
      for (let place = Math.max(offset, from); place < offset + length;) {
        const part = Math.min(chunkBytes - (place % chunkBytes), offset + length - place)
        if (extents.length >= extentsMaximum) await end()
        const extent = await this.#content.add(fd, place, part)
        if (extent) extents.push(extent)
        place += part
        if (this.#needs.clock.monotonic() - this.#turnMs > turnEveryMs) await this.#turn()
      }
    }
    await end()
  }

  async #addEntry(entry: SourceEntry, attributes: Buffer, extents: Extent[], target = ''): Promise<void> {
    const { kind, name, mode, uid, gid } = entry
    const isInline = attributes.length <= inlineAttributesBytes
    const apart = isInline ? [] : await this.#content.addBytes(attributes)
    entry.identity.copy(this.#identity)
    if (!this.#isTrusted(entry)) this.#identity.fill(0, at.changed - at.size)
    const identity = this.#identity
    this.#begin(name, 0)
    this.#builder.addRecord({
      kind,
      name,
      mode,
      uid,
      gid,
      identity,
      target,
      attributes: isInline ? attributes : nothing,
      extents,
    })
    this.#count(extents)
    if (!isInline) this.#addFurther(name, 'attributes', attributes.length, apart)
  }

  /** When nothing can have changed in it behind a time that stays the same. */
  #isTrusted({ kind, changedSeconds, changedNanoseconds }: SourceEntry): boolean {
    if (kind === 'hard link') return false
    const slackMs = changedNanoseconds === 0 ? coarseMs : tickMs
    return changedSeconds * 1e3 + changedNanoseconds / 1e6 < this.#needs.trustedUntilMs - slackMs
  }

  #addMore(name: string, sizeBytes: number, extents: Extent[]): void {
    this.#begin(name, extents[0]?.offset ?? 0)
    this.#addFurther(name, 'more', sizeBytes, extents)
    this.#count(extents)
  }

  #addFurther(name: string, kind: EntryRecord['kind'], sizeBytes: number, extents: Extent[]): void {
    const identity = Buffer.alloc(identityBytes)
    writeUInt64(identity, sizeBytes, 0)
    const record = { kind, name, mode: 0, uid: 0, gid: 0, identity, target: '', attributes: nothing, extents }
    this.#builder.addRecord(record)
  }

  #count(extents: readonly Extent[]): void {
    for (const { length } of extents) this.counts.dataBytes += length
  }

  /** A record follows: it needs to stand in its folder. */
  #begin(name: string, offset: number): void {
    this.#first ??= { folder: this.#folder, name, offset }
    if (this.#placedFolder === this.#folder) return
    this.#builder.addFolder(this.#folder)
    this.#placedFolder = this.#folder
  }

  async #endPiece(): Promise<void> {
    await this.#content.end()
    if (this.#first === undefined) return
    const bytes = this.#builder.take()
    const first = this.#first
    this.#first = undefined
    this.#placedFolder = undefined
    this.#map.of = undefined
    await this.#needs.sink(first, bytes)
  }
}

const nothing = Buffer.alloc(0)

/** What is read in one go is not looked at a second time. */
function isTorn({ identity }: SourceEntry, fd: number): boolean {
  const { size, mtimeNs } = fstatSync(fd, { bigint: true })
  const { seconds, nanoseconds } = timeAt(identity, at.modified - at.size)
  return Number(size) !== readUInt64(identity, 0) || mtimeNs !== BigInt(seconds) * 10n ** 9n + BigInt(nanoseconds)
}

function readFault(path: string, cause: unknown): unknown {
  return new Fault(
    'failed',
    `'${shown(path)}' cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`,
    {
      cause,
    },
  )
}
