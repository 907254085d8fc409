/**
 * Which chunks backups need: a bit for each chunk of the index.
 *
 * A piece of a map, or of the catalogue of a tree, is looked at once, however many backups share it, and of one that is stored as a delta only what it
 * changes, where a backup needs the piece it is based on anyway. What a delta is based on is kept, but not what that named and the delta changed,
 * unless somebody still needs it.
 *
 * Nobody goes by what a look that was cut off has seen: what leads to other chunks counts as looked at only when all of those are marked.
 */
import { Fault, isFault } from '#base/fault.ts'
import { letGo } from '#base/let-go.ts'
import { ChunkOrdinals, ChunkSet } from '../index/ordinals.ts'
import type { OpenDatastore } from '../datastore.ts'
import { shown } from '../chunks/chunk-reader.ts'
import { damagedPiece, deltaEntryBytes, DiskMap, isZeroId, storedPiece } from '../maps/disk-map.ts'
import { deltaDepthMaximum, pieceEntries, shortIdBytes } from '../format.ts'
import type { ManifestBody, ManifestDisk } from '../points/manifest.ts'
import type { Segment } from '../index/segment.ts'
import { markTree } from '../tree/live.ts'

const noRoot = Buffer.alloc(0)
/** Of two roots at once: where they are the same nothing has to be looked up. */
const comparedBytes = 64 * shortIdBytes

export class LiveChunks {
  readonly #ordinals: ChunkOrdinals
  readonly #needed: ChunkSet
  /** Roots, lists and pieces of which everything they lead to is marked. */
  readonly #done: ChunkSet
  /** Of each disk, by its name, the last root of which that is so: the next backup's is nearly the same. */
  readonly #roots = new Map<string, Buffer>()
  /** Of the piece that is looked at: 1 where a delta has said what is there. */
  readonly #hidden = new Uint8Array(pieceEntries)

  private constructor(ordinals: ChunkOrdinals) {
    this.#ordinals = ordinals
    this.#needed = new ChunkSet(ordinals)
    this.#done = new ChunkSet(ordinals)
  }

  static async of(segments: readonly Segment[]): Promise<LiveChunks> {
    return new LiveChunks(await ChunkOrdinals.of(segments))
  }

  /** Nothing is marked any more. */
  forget(): void {
    this.#needed.clear()
    this.#done.clear()
    this.#roots.clear()
  }

  get count(): number {
    return this.#ordinals.count
  }

  get live(): number {
    return this.#needed.size
  }

  /**
   * Fastest from the oldest backup to the newest.
   * @throws Fault `damaged` when something the backup needs cannot be found: then nobody may collect anything
   */
  async mark(open: OpenDatastore, body: ManifestBody): Promise<void> {
    for (const { chunks } of body.files) for (const id of chunks) await this.#need(open, Buffer.from(id, 'hex'))
    await this.#markTrees(open, body)
    for (const disk of body.disks) {
      await this.#markMap(open, disk, disk.root, true)
      // Without them the next backup only takes longer: they keep nobody from collecting.
      if (disk.prints) await this.#markMap(open, disk, disk.prints, false).catch(passOverDamaged)
    }
  }

  /** Whether a backup needs it. What came later is none of ours to judge. */
  has(id: Buffer): boolean {
    const ordinal = this.#ordinals.of(id)
    return ordinal === undefined || this.#needed.has(ordinal)
  }

  async #markTrees(open: OpenDatastore, { trees }: ManifestBody): Promise<void> {
    const marks = {
      isDone: (id: Buffer) => this.#isDone(id),
      need: (id: Buffer) => this.#need(open, id),
      needAll: (ids: Buffer) => this.#needAll(open, ids),
      done: (id: Buffer) => this.#noteDone(id),
    }
    for (const tree of trees) await markTree(open.chunks, tree, marks)
  }

  async #markMap(open: OpenDatastore, disk: ManifestDisk, ids: readonly string[], isOfChunks: boolean): Promise<void> {
    const roots = ids.map((id) => Buffer.from(id, 'hex'))
    if (roots.length > 0 && roots.every((id) => this.#isDone(id))) return
    for (const id of roots) await this.#need(open, id)
    const { root, chunks } = await DiskMap.open(
      open.chunks,
      Math.ceil(disk.sizeBytes / open.datastore.facts.chunkBytes),
      roots,
    )
    const key = `${disk.name} ${isOfChunks}`
    const before = this.#roots.get(key) ?? noRoot
    for (let from = 0; from < root.length; from += comparedBytes) {
      const to = Math.min(root.length, from + comparedBytes)
      if (to <= before.length && root.compare(before, from, to, from, to) === 0) continue
      for (let at = from; at < to; at += shortIdBytes) {
        if (isZeroId(root, at) || this.#isDone(root, at)) continue
        const count = Math.min(pieceEntries, chunks - (at / shortIdBytes) * pieceEntries)
        await this.#markPiece(open, root.subarray(at, at + shortIdBytes), count, isOfChunks)
      }
    }
    for (const id of roots) this.#noteDone(id)
    this.#roots.set(key, root)
    letGo(before)
  }

  /** The piece itself, what it is based on, and the chunks it names. */
  async #markPiece(open: OpenDatastore, piece: Buffer, count: number, isOfChunks: boolean): Promise<void> {
    const hidden = this.#hidden.fill(0)
    for (let [id, deltas] = [piece, 0]; !this.#isDone(id); deltas += 1) {
      await this.#need(open, id)
      const stored = await storedPiece(open.chunks, id, count)
      if ('ids' in stored) {
        if (isOfChunks) await this.#needAll(open, stored.ids, hidden)
        letGo(stored.ids)
        break
      }
      if (deltas === deltaDepthMaximum) throw damagedPiece(piece, 'it is made of too many deltas')
      if (isOfChunks) await this.#needChanged(open, stored.changes, hidden)
      id = stored.base
    }
    this.#noteDone(piece)
  }

  async #needChanged(open: OpenDatastore, changes: Buffer, hidden: Uint8Array): Promise<void> {
    for (let at = 0; at < changes.length; at += deltaEntryBytes) {
      const position = changes.readUInt16LE(at)
      if (hidden[position] === 1) continue
      hidden[position] = 1
      if (!isZeroId(changes, at + 2)) await this.#need(open, changes.subarray(at + 2, at + deltaEntryBytes))
    }
  }

  /** @param hidden 1 for those to pass over */
  async #needAll(open: OpenDatastore, ids: Buffer, hidden?: Uint8Array): Promise<void> {
    for (let at = 0; at < ids.length; at += shortIdBytes) {
      if (hidden?.[at / shortIdBytes] === 1 || isZeroId(ids, at)) continue
      const ordinal = this.#ordinals.of(ids, at)
      if (ordinal === undefined) await this.#need(open, ids.subarray(at, at + shortIdBytes))
      else this.#needed.add(ordinal)
    }
  }

  /** @throws Fault `damaged` when it is nowhere */
  async #need(open: OpenDatastore, id: Buffer): Promise<void> {
    const ordinal = this.#ordinals.of(id)
    if (ordinal !== undefined) {
      this.#needed.add(ordinal)
      return
    }
    // Whether it is there now; and then nobody thinks of removing it.
    if (await open.index.find(id)) return
    await open.index.reload()
    if (await open.index.find(id)) return
    throw new Fault('damaged', `chunk ${shown(id)} of a backup is in no pack of the datastore`, {
      remedy: 'Verify the datastore, and remove the backups that are hit; nothing is collected before.',
    })
  }

  #isDone(id: Buffer, at = 0): boolean {
    const ordinal = this.#ordinals.of(id, at)
    return ordinal !== undefined && this.#done.has(ordinal)
  }

  #noteDone(id: Buffer): void {
    const ordinal = this.#ordinals.of(id)
    if (ordinal !== undefined) this.#done.add(ordinal)
  }
}

function passOverDamaged(fault: unknown): void {
  if (!isFault(fault, 'damaged')) throw fault
}
