/** Writes what changed of a disk since an earlier backup, and takes over the rest of its map. */
import { isZero } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import type { Base } from './built-upon.ts'
import type { BlockSource } from './block-source.ts'
import { type ChangeRegion, changeRegions, Sample } from './changes.ts'
import type { ChunkWriter } from '../chunks/chunk-writer.ts'
import type { OpenDatastore } from '../datastore.ts'
import { isZeroId, type MapRoot, MapWriter, unlessDamaged, zeroId } from '../maps/disk-map.ts'
import { kinds, pieceEntries, shortIdBytes } from '../format.ts'
import type { Reading } from '../points/manifest.ts'
import { printPoint } from '../point.ts'
import { readRegions } from './read-source.ts'

export interface Changes {
  readonly open: OpenDatastore
  readonly chunks: ChunkWriter
  readonly source: BlockSource
  readonly base: Base
  /** Chunks called unchanged that are looked at all the same, of 1. */
  readonly auditedShare?: number | undefined
  /** Reads under way at once. */
  readonly readsAhead?: number | undefined
  /** After each region: position on the disk, bytes read and stored so far. */
  readonly onRead: (doneBytes: number, readBytes: number, storedBytes: number) => Promise<void>
}

export interface AddedChanges {
  readonly map: MapRoot
  readonly prints: MapRoot | undefined
  readonly counts: { chunks: number; dataBytes: number; newChunks: number; newStoredBytes: number }
  readonly reading: Reading
}

/** All of the disk has to be read after all. */
export interface Refused {
  /** What will be said of it. */
  readonly refused: Reading
  /** The earlier backup lacks content, so nothing of it may be taken over. */
  readonly isContentLost: boolean
}

class NotToBeTrusted extends Error implements Refused {
  readonly refused: Reading
  readonly isContentLost: boolean

  constructor(refused: Reading, isContentLost = false) {
    super(refused.reason)
    this.refused = refused
    this.isContentLost = isContentLost
  }
}

export async function addChanges(about: Changes): Promise<AddedChanges | Refused> {
  try {
    return await new ChangesWriter(about).run()
  } catch (cause) {
    if (cause instanceof NotToBeTrusted) return cause
    // What the earlier backup consists of; what the disk does has other kinds.
    if (isFault(cause, 'damaged')) return { refused: { how: 'scan', reason: cause.message }, isContentLost: false }
    throw cause
  }
}

class ChangesWriter {
  readonly #about: Changes
  readonly #map: MapWriter
  readonly #prints: MapWriter | undefined
  readonly #counts: AddedChanges['counts']
  #changedBytes = 0
  #auditedChunks = 0

  constructor(about: Changes) {
    this.#about = about
    const { open, chunks, base } = about
    this.#map = new MapWriter(open.keyring, chunks, base.map.chunks, base.map, true)
    this.#prints = base.prints && new MapWriter(open.keyring, chunks, base.map.chunks, base.prints, true)
    this.#counts = { chunks: base.disk.chunks, dataBytes: base.disk.dataBytes, newChunks: 0, newStoredBytes: 0 }
  }

  async run(): Promise<AddedChanges> {
    const { open, source, base, auditedShare, readsAhead, onRead } = this.#about
    const { facts, deps } = open.datastore
    const geometry = { sizeBytes: source.sizeBytes, chunkBytes: facts.chunkBytes }
    const regions = changeRegions(source.extents(), geometry, new Sample(deps.random, auditedShare))
    let read = 0
    for await (const region of readRegions(source, regions, readsAhead)) {
      if (region.isAudit) await this.#audit(region, region.bytes)
      else await this.#take(region, region.bytes)
      read += region.bytes.length
      await onRead(region.offset + region.length, read, this.#counts.newStoredBytes)
    }
    return {
      map: await this.#map.finish(),
      prints: await this.#prints?.finish(),
      counts: this.#counts,
      reading: {
        how: 'changes',
        since: printPoint(base.since.point),
        changedBytes: this.#changedBytes,
        auditedChunks: this.#auditedChunks,
      },
    }
  }

  async #take({ offset, length, isZero: isEmpty }: ChangeRegion, bytes: Buffer): Promise<void> {
    const { open, chunks } = this.#about
    const { chunkBytes } = open.datastore.facts
    this.#changedBytes += length
    for (let at = 0; at < length; at += chunkBytes) {
      const content = bytes.subarray(at, at + chunkBytes)
      const isNothing = isEmpty || isZero(content)
      const id = isNothing ? zeroId : open.keyring.idOf(kinds.content, content)
      const stored = isNothing ? 0 : await chunks.put(id, kinds.content, content)
      const position = (offset + at) / chunkBytes
      const more = await this.#map.set(position, id)
      await this.#prints?.set(position, isNothing ? zeroId : open.keyring.printOf(content))
      this.#counts.chunks += more
      this.#counts.dataBytes += more * Math.min(chunkBytes, length - at)
      this.#counts.newChunks += stored > 0 ? 1 : 0
      this.#counts.newStoredBytes += stored
    }
  }

  /** @throws NotToBeTrusted */
  async #audit(region: ChangeRegion, content: Buffer): Promise<void> {
    if (region.isZero) return this.#auditZeros(region)
    const { open, base, chunks } = this.#about
    const { offset } = region
    const position = offset / open.datastore.facts.chunkBytes
    const id = await base.map.idAt(position)
    const isNothing = isZero(content)
    this.#auditedChunks += 1
    const isAsBefore = isNothing
      ? isZeroId(id)
      : (await this.#hasPrint(position, content)) || open.keyring.isIdOf(id, kinds.content, content)
    if (!isAsBefore) throw this.#lie(offset)
    if (!isNothing && !chunks.mayHave(id)) {
      const reason = `the datastore lacks content of backup ${printPoint(base.since.point)}`
      throw new NotToBeTrusted({ how: 'scan', reason, auditedChunks: this.#auditedChunks }, true)
    }
  }

  /** Tells what did not change in a third of the time an id takes; see `add-whole.ts`. */
  async #hasPrint(position: number, content: Buffer): Promise<boolean> {
    const { open, base } = this.#about
    const print = base.prints && (await unlessDamaged(base.prints.idAt(position)))
    return print !== undefined && open.keyring.printOf(content).equals(print)
  }

  /** However long the run is: a piece of the map that is zero is one id. @throws NotToBeTrusted */
  async #auditZeros({ offset, length }: ChangeRegion): Promise<void> {
    const { open, base } = this.#about
    const { chunkBytes } = open.datastore.facts
    const [first, end] = [offset / chunkBytes, Math.ceil((offset + length) / chunkBytes)]
    for (let piece = Math.floor(first / pieceEntries); piece * pieceEntries < end; piece += 1) {
      if (isZeroId(base.map.root, piece * shortIdBytes)) continue
      const start = piece * pieceEntries
      const { ids } = await base.map.piece(piece)
      const [from, to] = [Math.max(first, start) - start, Math.min(end, start + pieceEntries) - start]
      if (isZero(ids.subarray(from * shortIdBytes, to * shortIdBytes))) continue
      let at = from
      while (isZeroId(ids, at * shortIdBytes)) at += 1
      throw this.#lie((start + at) * chunkBytes)
    }
  }

  #lie(offset: number): NotToBeTrusted {
    const backup = printPoint(this.#about.base.since.point)
    const reason = `the record of changes is wrong: what is at ${offset} is not what backup ${backup} holds there`
    return new NotToBeTrusted({ how: 'scan', reason, auditedChunks: this.#auditedChunks, hits: 1 })
  }
}
