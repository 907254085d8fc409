/**
 * What an engine knows of a tree in a backup: the pieces of its catalogue, in order, and the chunks they name. How a tree
 * is gone through, restored and packed rests on this alone.
 */
import { Fault } from '#base/fault.ts'
import type { Piece, PieceForm } from './piece.ts'
import { folderKey } from './record.ts'

/** The first entry of a piece. Keys go up, so a path is found by halving. */
export interface TreeKey {
  readonly folder: string
  readonly name: string
  /** In the content of the entry, when the piece begins in the middle of it. */
  readonly offset: number
}

export function compareKeys(one: TreeKey, other: TreeKey): number {
  const [folder, otherFolder] = [folderKey(one.folder), folderKey(other.folder)]
  if (folder !== otherFolder) return folder < otherFolder ? -1 : 1
  if (one.name !== other.name) return one.name < other.name ? -1 : 1
  return one.offset - other.offset
}

/** The last index of which it holds; it holds up to some index and no further. -1 when of none. */
export function lastWhere<T>(of: readonly T[], holds: (one: T) => boolean): number {
  let [low, high] = [-1, of.length - 1]
  while (low < high) {
    const middle = Math.ceil((low + high) / 2)
    const one = of[middle]
    if (one !== undefined && holds(one)) low = middle
    else high = middle - 1
  }
  return low
}

/** A piece as the list of pieces tells of it. */
export interface PieceEntry {
  /** Among all pieces of the tree. */
  readonly number: number
  readonly key: TreeKey
}

/** A piece that was read. */
export interface OpenPiece {
  readonly entry: PieceEntry
  readonly piece: Piece
}

/** What a manifest tells of a tree, whatever the version of its format. */
export interface TreeFacts {
  readonly name: string
  /** The same for trees in which nothing differs. */
  readonly digest: string
  readonly pieces: number
  readonly entries: number
  readonly files: number
  readonly dataBytes: number
  readonly highestUid: number
  readonly highestGid: number
}

export interface Catalogue {
  /** For faults: `tree rootfs of backup ct/100/…`. */
  readonly name: string
  readonly pieces: number
  readonly form: PieceForm
  /** Nothing behind the last one. @throws Fault `damaged` */
  pieceAt: (number: number) => Promise<PieceEntry | undefined>
  /** The piece in which an entry of this key must stand, if there is one. @throws Fault `damaged` */
  find: (key: TreeKey) => Promise<PieceEntry | undefined>
  /** Its bytes, proven to be those that were stored. @throws Fault `damaged` */
  read: (entry: PieceEntry) => Promise<Buffer>
  /** Content of a chunk a piece names. @throws Fault `damaged` naming the chunk */
  chunk: (open: OpenPiece, chunk: number) => Promise<Buffer>
  /** Sees whether these are the pieces the manifest tells of. @throws Fault `damaged` */
  check: () => Promise<void>
}

export function damagedTree(name: string, how: string, cause?: unknown): Fault {
  return new Fault('damaged', `${name} is damaged: ${how}`, {
    cause,
    remedy: 'Restore from another backup or another copy of this datastore.',
  })
}
