/** Which backups a damaged pack hits: those for which a chunk of theirs lies nowhere else; and that they say so. */
import { Fault, isFault } from '#base/fault.ts'
import { shown } from '../chunks/chunk-reader.ts'
import type { Datastore, OpenDatastore } from '../datastore.ts'
import { DiskMap, isZeroId } from '../maps/disk-map.ts'
import { shortIdBytes } from '../format.ts'
import { isDamage } from './verify.ts'
import { goOn } from '../go-on.ts'
import type { ManifestTree } from '../points/manifest.ts'
import { parsePoint, printPoint } from '../point.ts'
import { type ChunkMarks, markTree } from '../tree/live.ts'

/** How the damage of a backup begins that another look at all backups found, or finds to be over; what a check of its own says stays. */
export const foundByLook = 'damaged: '

/**
 * What a look at all backups found of one, or that it is over. Not where we may not say so, nor of one that is gone.
 * @param name of the backup
 */
export async function markHit(datastore: Datastore, name: string, damage: string | undefined): Promise<void> {
  try {
    await datastore.mark(parsePoint(name), { damage: damage && `${foundByLook}${damage}`.slice(0, 1_000) })
  } catch (fault) {
    if (!isFault(fault, 'denied') && !isFault(fault, 'missing')) throw fault
  }
}

/** Names of backups, oldest first. @param packs in which damage was seen */
export async function backupsHit(
  open: OpenDatastore,
  packs: ReadonlySet<string>,
  signal?: AbortSignal,
): Promise<string[]> {
  await open.index.reload()
  const looking = new Looking(open, packs)
  const hit: string[] = []
  for (const point of await open.datastore.points()) {
    goOn(signal)
    try {
      const { disks, trees, files } = await open.body(point)
      const roots = [...disks, ...trees].flatMap(({ root }) => root)
      const isHit = await looking.isAnyBad([...files.flatMap(({ chunks }) => chunks), ...roots])
      if (isHit || (await looking.areMapsBad(disks)) || (await looking.areTreesBad(trees))) hit.push(printPoint(point))
    } catch (fault) {
      if (!(fault instanceof Fault)) throw fault
      if (fault.kind === 'missing') continue
      if (!isDamage(fault)) throw fault
      hit.push(printPoint(point))
    }
  }
  return hit
}

class Looking {
  readonly #open: OpenDatastore
  readonly #packs: ReadonlySet<string>
  /** A piece many backups share is looked at once. */
  readonly #pieces = new Map<string, boolean>()
  /** Pieces and lists of trees in which nothing is bad. */
  readonly #wholeOfTrees = new Set<string>()

  constructor(open: OpenDatastore, packs: ReadonlySet<string>) {
    this.#open = open
    this.#packs = packs
  }

  async isAnyBad(ids: readonly string[]): Promise<boolean> {
    for (const id of ids) if (await this.#isBad(Buffer.from(id, 'hex'))) return true
    return false
  }

  async #isBad(id: Buffer): Promise<boolean> {
    const location = await this.#open.index.find(id)
    return location === undefined || this.#packs.has(location.pack)
  }

  async areMapsBad(
    disks: readonly { readonly sizeBytes: number; readonly root: readonly string[] }[],
  ): Promise<boolean> {
    const { chunkBytes } = this.#open.datastore.facts
    for (const { sizeBytes, root } of disks) {
      const ids = root.map((id) => Buffer.from(id, 'hex'))
      const map = await DiskMap.open(this.#open.chunks, Math.ceil(sizeBytes / chunkBytes), ids)
      for (let piece = 0; piece < map.pieces; piece += 1) if (await this.#isPieceBad(map, piece)) return true
    }
    return false
  }

  async areTreesBad(trees: readonly ManifestTree[]): Promise<boolean> {
    const need = async (id: Buffer) => {
      if (await this.#isBad(id)) throw new Fault('damaged', `chunk ${shown(id)} is in a damaged pack`)
    }
    const marks: ChunkMarks = {
      isDone: (id) => this.#wholeOfTrees.has(id.toString('latin1')),
      done: (id) => this.#wholeOfTrees.add(id.toString('latin1')),
      need,
      needAll: async (ids) => {
        for (let at = 0; at < ids.length; at += shortIdBytes) await need(ids.subarray(at, at + shortIdBytes))
      },
    }
    try {
      for (const tree of trees) await markTree(this.#open.chunks, tree, marks)
    } catch (fault) {
      if (isFault(fault, 'damaged')) return true
      throw fault
    }
    return false
  }

  async #isPieceBad(map: DiskMap, piece: number): Promise<boolean> {
    const id = map.pieceId(piece)
    if (isZeroId(id)) return false
    const key = id.toString('latin1')
    const known = this.#pieces.get(key)
    if (known !== undefined) return known
    const isBad = await this.#isAnyOfPieceBad(map, piece)
    this.#pieces.set(key, isBad)
    return isBad
  }

  async #isAnyOfPieceBad(map: DiskMap, piece: number): Promise<boolean> {
    const { ids } = await map.piece(piece)
    for (let at = 0; at < ids.length; at += shortIdBytes) {
      const id = ids.subarray(at, at + shortIdBytes)
      if (!isZeroId(id) && (await this.#isBad(id))) return true
    }
    return false
  }
}
