/**
 * The numbers of the on-disk format, version 1. `docs/formats/backup-v1.md` describes every byte.
 *
 * All integers are little-endian. Whatever is read back is checked against these bounds before a byte
 * of memory is reserved for it: a damaged or hostile datastore costs an error, never memory.
 */
import { GiB, MiB, TiB } from '#base/bytes.ts'
import { limits } from '#base/limits.ts'
import type { PieceForm } from '#datastore/tree/piece.ts'

export const formatVersion = 1
/** Of the manifest of a backup with trees, `docs/formats/backup-tree-v1.md`. The datastore around it is of version 1. */
export const treesVersion = 2
export const pieceFormV1: PieceForm = { magic: 0x31_54_4b_48, idBytes: 32 } // "HKT1"

/** Data is cut at multiples of this, from the start of the disk. Fixed and aligned, because file systems rewrite in place. */
export const chunkBytes = limits.backup.chunkBytes

/** A pack is closed once it holds this much, so that a removed backup gives its space back in pieces of this size. */
export const packTargetBytes = 32 * MiB
/** No pack is larger: the target, one record over it, and the table. */
export const packMaximumBytes = 64 * MiB

/** Chunks described by one piece of an index: 512 MiB of disk. */
export const pieceChunks = 4_096
/** A piece before compression: per chunk its digest, pack number, offset and length. */
export const pieceEntryBytes = 32 + 4 + 4 + 4

/** No disk is larger, no backup has more disks than this. */
export const diskMaximumBytes = 64 * TiB
export const disksMaximum = 256
export const packsMaximum = 2 ** 22
export const storedFileMaximumBytes = 64 * MiB

/** Slots of the table of chunks known from earlier backups; past it older chunks are stored again. */
export const knownSlotsMaximum = 2 ** 21

/** Enough for 64 TiB full of data; an index is only ever read piece by piece. */
export const indexMaximumBytes = 32 * GiB

/** Some hundred million entries; the file of a tree, too, is read segment by segment. */
export const treeFileMaximumBytes = 16 * GiB
