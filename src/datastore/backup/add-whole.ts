/**
 * Reads a whole disk and writes what is not there yet.
 *
 * Beside its map a disk has its *prints*: for each chunk a MAC that takes a sixth of the time an id does. What has the
 * print it had in the last backup is what it was, and its id is known. A print proves nothing to those who have the keys,
 * and is therefore never taken for an id: it only says that a disk did not change between two looks at it.
 */
import { isZero } from '#base/bytes.ts'
import type { BlockSource } from './block-source.ts'
import type { ChunkWriter } from '../chunks/chunk-writer.ts'
import type { OpenDatastore } from '../datastore.ts'
import { DiskMap, isZeroId, type MapRoot, MapWriter, unlessDamaged } from '../maps/disk-map.ts'
import { kinds, pieceEntries, shortIdBytes } from '../format.ts'
import type { ManifestDisk } from '../points/manifest.ts'
import { readSource } from './read-source.ts'

export interface WholeDisk {
  readonly open: OpenDatastore
  readonly chunks: ChunkWriter
  readonly source: BlockSource
  /** As the last backup had it. */
  readonly before: DiskBefore | undefined
  /** Reads under way at once. */
  readonly readsAhead?: number | undefined
  /** After each read: position on the disk, bytes read and stored so far. */
  readonly onRead: (doneBytes: number, readBytes: number, storedBytes: number) => Promise<void>
}

export interface DiskBefore {
  readonly map: DiskMap
  readonly prints: DiskMap | undefined
}

export interface AddedWhole {
  readonly map: MapRoot
  readonly prints: MapRoot
  readonly counts: { chunks: number; dataBytes: number; newChunks: number; newStoredBytes: number }
}

/** @throws Fault `damaged` when its map cannot be read; prints that cannot be are none */
export async function diskBefore({ chunks, datastore }: OpenDatastore, disk: ManifestDisk): Promise<DiskBefore> {
  const count = Math.ceil(disk.sizeBytes / datastore.facts.chunkBytes)
  const opened = (root: readonly string[]) =>
    DiskMap.open(
      chunks,
      count,
      root.map((id) => Buffer.from(id, 'hex')),
    )
  return { map: await opened(disk.root), prints: disk.prints && (await unlessDamaged(opened(disk.prints))) }
}

export async function addWhole(about: WholeDisk): Promise<AddedWhole> {
  return new WholeWriter(about).run()
}

class WholeWriter {
  readonly #about: WholeDisk
  readonly #map: MapWriter
  readonly #prints: MapWriter
  readonly #counts = { chunks: 0, dataBytes: 0, newChunks: 0, newStoredBytes: 0 }
  /** The piece of the last backup's map, and of its prints, the chunk at hand is in. */
  #piece = -1
  #ids: Buffer | undefined
  #known: Buffer | undefined
  /** Content of the last backup is not there any more. */
  #hasLost = false

  constructor(about: WholeDisk) {
    this.#about = about
    const { open, chunks, source, before } = about
    const count = Math.ceil(source.sizeBytes / open.datastore.facts.chunkBytes)
    this.#map = new MapWriter(open.keyring, chunks, count, before?.map)
    this.#prints = new MapWriter(open.keyring, chunks, count, before?.prints)
  }

  async run(): Promise<AddedWhole> {
    const { open, source, readsAhead, onRead } = this.#about
    const { chunkBytes } = open.datastore.facts
    let read = 0
    for await (const { offset, bytes } of readSource(source, readsAhead, chunkBytes)) {
      for (let at = 0; at < bytes.length; at += chunkBytes) {
        const content = bytes.subarray(at, at + chunkBytes)
        if (!isZero(content)) await this.#take((offset + at) / chunkBytes, content)
      }
      read += bytes.length
      await onRead(offset + bytes.length, read, this.#counts.newStoredBytes)
    }
    return { map: await this.#map.finish(), prints: await this.#prints.finish(), counts: this.#counts }
  }

  async #take(position: number, content: Buffer): Promise<void> {
    const { keyring } = this.#about.open
    const piece = Math.floor(position / pieceEntries)
    if (piece !== this.#piece) await this.#turnTo(piece)
    const print = keyring.printOf(content)
    const id = this.#idByPrint(position, print) ?? (await this.#stored(position, content))
    await this.#map.set(position, id)
    await this.#prints.set(position, print)
    this.#counts.chunks += 1
    this.#counts.dataBytes += content.length
  }

  async #turnTo(piece: number): Promise<void> {
    const { open, before } = this.#about
    this.#piece = piece
    this.#ids = undefined
    this.#known = undefined
    // Where a pack is known to be damaged, or content is gone, a backup mends it: nothing is taken for there unseen.
    if (!before || piece >= before.map.pieces || open.index.hasSuspects || this.#hasLost) return
    this.#ids = (await unlessDamaged(before.map.piece(piece)))?.ids
    this.#known = before.prints && (await unlessDamaged(before.prints.piece(piece)))?.ids
  }

  /** Of a chunk that is what it was; 16 bytes. */
  #idByPrint(position: number, print: Buffer): Buffer | undefined {
    if (entryAt(this.#known, position)?.equals(print) !== true) return undefined
    const id = entryAt(this.#ids, position)
    return id && !isZeroId(id) && this.#isThere(id) ? id : undefined
  }

  /** Of a chunk of the last backup, by what is in memory. Where one is gone, the rest is looked up. */
  #isThere(id: Buffer): boolean {
    const { chunks, open } = this.#about
    if (chunks.mayHave(id)) return true
    if (open.index.isCondemned(id)) return false
    this.#hasLost = true
    this.#ids = undefined
    this.#known = undefined
    return false
  }

  /** @returns its id; it is there afterwards */
  async #stored(position: number, content: Buffer): Promise<Buffer> {
    const { open, chunks } = this.#about
    const id = open.keyring.idOf(kinds.content, content)
    if (this.#isAsBefore(position, id)) return id
    const stored = await chunks.put(id, kinds.content, content)
    this.#counts.newChunks += stored > 0 ? 1 : 0
    this.#counts.newStoredBytes += stored
    return id
  }

  /** The chunk is in the last backup at the same place: then it needs no looking up. */
  #isAsBefore(position: number, id: Buffer): boolean {
    const before = entryAt(this.#ids, position)
    return before?.compare(id, 0, shortIdBytes) === 0 && this.#isThere(id)
  }
}

function entryAt(piece: Buffer | undefined, position: number): Buffer | undefined {
  const at = (position % pieceEntries) * shortIdBytes
  return piece && at < piece.length ? piece.subarray(at, at + shortIdBytes) : undefined
}
