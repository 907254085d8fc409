/**
 * Which chunks backups need: a bit for each chunk of the index.
 *
 * A piece of a map, or of the catalogue of a tree, is looked at once, however many backups share it. What a delta is based on is kept, but not what that
 * named, unless somebody still needs it.
 */
import { Fault, isFault } from '#base/fault.ts'
import { ChunkOrdinals } from './chunk-ordinals.ts'
import type { OpenDatastore } from './datastore.ts'
import { basesOf, deltaOf, DiskMap, isZeroId } from './disk-map.ts'
import { shortIdBytes } from './format.ts'
import type { ManifestBody, ManifestDisk } from './manifest.ts'
import type { Segment } from './segment.ts'
import { markTree } from './tree/live.ts'

/** Some 50 bytes each; without them a piece is put together again. */
const walkedMaximum = 2 ** 18

export class LiveChunks {
  readonly #ordinals: ChunkOrdinals
  readonly #bits: Uint8Array
  /** Pieces of which every chunk they name is marked. */
  readonly #walked = new Set<string>()
  #live = 0

  private constructor(ordinals: ChunkOrdinals) {
    this.#ordinals = ordinals
    this.#bits = new Uint8Array(Math.ceil(ordinals.count / 8))
  }

  static async of(segments: readonly Segment[]): Promise<LiveChunks> {
    return new LiveChunks(await ChunkOrdinals.of(segments))
  }

  /** Nothing is marked any more. */
  forget(): void {
    this.#bits.fill(0)
    this.#walked.clear()
    this.#live = 0
  }

  get count(): number {
    return this.#ordinals.count
  }

  get live(): number {
    return this.#live
  }

  /** @throws Fault `damaged` when something the backup needs cannot be found: then nobody may collect anything */
  async mark(open: OpenDatastore, body: ManifestBody): Promise<void> {
    for (const { chunks } of body.files) for (const id of chunks) await this.#needed(open, Buffer.from(id, 'hex'))
    await this.#markTrees(open, body)
    for (const disk of body.disks) {
      await this.#markMap(open, disk, disk.root, true)
      // Without them the next backup only takes longer: they keep nobody from collecting.
      if (disk.prints) await this.#markMap(open, disk, disk.prints, false).catch(unlessDamaged)
    }
  }

  async #markMap(open: OpenDatastore, disk: ManifestDisk, ids: readonly string[], isOfChunks: boolean): Promise<void> {
    const root = ids.map((id) => Buffer.from(id, 'hex'))
    // A root that was seen is that of an equal disk, whose pieces were seen, too.
    let isNew = false
    for (const id of root) isNew = (await this.#needed(open, id)) || isNew
    if (!isNew && root.length > 0) return
    const map = await DiskMap.open(open.chunks, Math.ceil(disk.sizeBytes / open.datastore.facts.chunkBytes), root)
    for (let piece = 0; piece < map.pieces; piece += 1) await this.#markPiece(open, map, piece, isOfChunks)
  }

  async #markTrees(open: OpenDatastore, { trees }: ManifestBody): Promise<void> {
    const needed = (id: Buffer) => this.#needed(open, id)
    const content = async (id: Buffer) => this.#mark(id) ?? (await needed(id))
    for (const tree of trees) await markTree(open.chunks, tree, needed, content)
  }

  async #markPiece(open: OpenDatastore, map: DiskMap, piece: number, isOfChunks: boolean): Promise<void> {
    const id = map.pieceId(piece)
    if (isZeroId(id)) return
    // Marked it may be as what another is based on, and not for what it names.
    if (!(await this.#needed(open, id)) && (!isOfChunks || this.#isWalked(id))) return
    // What one that was seen is based on was seen, too.
    for await (const base of basesOf(open.chunks, id)) if (!(await this.#needed(open, base))) break
    if (!isOfChunks) return
    const delta = await deltaOf(open.chunks, id)
    // What the base names besides is marked already.
    const lists = delta && this.#isWalked(delta.base) ? delta.ids : [(await map.piece(piece)).ids]
    for (const ids of lists) await this.#markAll(open, ids)
    this.#walked.add(id.toString('latin1'))
    if (this.#walked.size > walkedMaximum) this.#walked.clear()
  }

  async #markAll(open: OpenDatastore, ids: Buffer): Promise<void> {
    for (let at = 0; at < ids.length; at += shortIdBytes) {
      if (isZeroId(ids, at)) continue
      const chunk = ids.subarray(at, at + shortIdBytes)
      if (this.#mark(chunk) === undefined) await this.#needed(open, chunk)
    }
  }

  #isWalked(piece: Buffer): boolean {
    return this.#walked.has(piece.toString('latin1'))
  }

  /** Whether a backup needs it. What came later is none of ours to judge. */
  has(id: Buffer): boolean {
    const ordinal = this.#ordinals.of(id)
    return ordinal === undefined || ((this.#bits[ordinal >> 3] ?? 0) & (1 << (ordinal & 7))) !== 0
  }

  /**
   * @returns whether it was not marked before; false for what was stored after the index was looked at
   * @throws Fault `damaged` when it is nowhere
   */
  async #needed(open: OpenDatastore, id: Buffer): Promise<boolean> {
    const isNew = this.#mark(id)
    if (isNew !== undefined) return isNew
    // Whether it is there now; and then nobody thinks of removing it.
    if (await open.index.find(id)) return true
    await open.index.reload()
    if (await open.index.find(id)) return true
    throw new Fault(
      'damaged',
      `chunk ${id.toString('hex', 0, shortIdBytes)} of a backup is in no pack of the datastore`,
      {
        remedy: 'Verify the datastore, and remove the backups that are hit; nothing is collected before.',
      },
    )
  }

  /** @returns whether it was not marked before; nothing when it is not in the index that is looked at */
  #mark(id: Buffer): boolean | undefined {
    const ordinal = this.#ordinals.of(id)
    if (ordinal === undefined) return undefined
    const [at, bit] = [ordinal >> 3, 1 << (ordinal & 7)]
    if (((this.#bits[at] ?? 0) & bit) !== 0) return false
    this.#bits[at] = (this.#bits[at] ?? 0) | bit
    this.#live += 1
    return true
  }
}

function unlessDamaged(fault: unknown): void {
  if (!isFault(fault, 'damaged')) throw fault
}
