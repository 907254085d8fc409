/**
 * The numbers of the on-disk format, version 2. `docs/formats/datastore-v2.md` describes every byte.
 *
 * Whatever is read back is checked against these bounds before a byte of memory is reserved for it: a damaged or hostile
 * datastore costs an error, never memory.
 */
import { limits } from '#base/limits.ts'
import { KiB, MiB, TiB } from '#base/bytes.ts'

export const formatVersion = 2

/** Sizes a disk may be cut into; fixed and aligned, because file systems rewrite in place. */
export const chunkSizes = [64 * KiB, 128 * KiB, 256 * KiB] as const
export const defaultChunkBytes = 128 * KiB
/** Of what is not content of disks and files: maps, trees. */
export const metadataMaximumBytes = 1 * MiB

/** A pack is closed once it holds this much. */
export const packTargetBytes = 32 * MiB
/** No pack is larger: the target, one chunk over it, and the table. */
export const packMaximumBytes = 64 * MiB

/** Bytes of an id where it is proven, and where it only has to be found. */
export const idBytes = 32
export const shortIdBytes = 16

/** Chunks described by one piece of a map: 512 MiB of a disk cut at 128 KiB. */
export const pieceEntries = 4_096
export const pieceBytes = pieceEntries * shortIdBytes
/** Pieces named by one chunk of a map's root. */
export const rootEntries = 65_536
/** A piece that is a delta of a delta of … is written whole after so many. */
export const deltaDepthMaximum = 16

/** Read from a source in one go: enough to keep a disk busy and waits for it few, little enough to hold some. */
export const readBytes = 2 * MiB
/** Reads on the way at once, so at most `readsAhead × readBytes` of data wait in memory. */
export const readsAhead = limits.backup.queuedBlocks / 8

/** Of disks and trees, and of small files kept with a backup. */
export const diskNamePattern = /^[a-z][a-z0-9-]{0,31}$/
export const storedFilePattern = /^[a-z][a-z0-9.-]{0,63}$/

export const diskMaximumBytes = 64 * TiB
/** Disks and files of one backup. */
export const partsMaximum = 256
export const fileMaximumBytes = 64 * MiB
/** Lists of lists of pieces of a tree: for thousands of millions of entries. */
export const topListsMaximum = 256
export const manifestMaximumBytes = 64 * MiB
export const segmentEntriesMaximum = 2 ** 28
export const segmentPacksMaximum = 2 ** 22

export const kinds = { content: 0, map: 1, tree: 2 } as const
export type ChunkKind = (typeof kinds)[keyof typeof kinds]

/** Of a stored chunk: bits 0 to 3 its coding, 4 to 7 its kind, 8 whether it is a delta. */
export const coding = { raw: 0, zstd: 1 } as const
export const deltaFlag = 1 << 8

export function kindOf(flags: number): number {
  return (flags >> 4) & 15
}

export function codingOf(flags: number): number {
  return flags & 15
}

/** Of the files `format` and `keys/…`. */
export const formatMaximumBytes = 64 * KiB
export const keyFileMaximumBytes = 4 * MiB
