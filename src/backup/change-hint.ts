/**
 * Whether a backup changed more than its guest usually does, in the way malware changes things that encrypts a disk: much
 * is new, and what is new cannot be compressed any more.
 *
 * Compared with the guest's own backups before it, by their medians, for each guest has habits of its own: a disk of
 * films never could be compressed. Ordinary new data shrink to less than half, encrypted ones not at all. A hint is no
 * proof, so it never removes anything.
 *
 * Where nothing of what is new can be compressed, and it took the place of something, the jump alone can tell: of a small part
 * of a large guest, and of most of one whose data never shrank. What is only added is none: people copy films, too.
 */
import { defaultChunkBytes } from '#datastore/format.ts'
import type { Manifest } from '#datastore/points/manifest.ts'

/** What a backup says of change. */
export interface Change {
  /** Chunks of the guest that no backup had before, of all its chunks, 0 to 1: what was moved or copied is not new. */
  readonly newShare: number
  /** Bytes stored for each new chunk. */
  readonly bytesPerNewChunk: number
  readonly newChunks: number
  /** Of the guest, with those it had. */
  readonly chunks: number
}

/** Backups of the guest that are compared with, at most the latest so many. */
export const historyLeast = 3
const historyMost = 30
/** The oldest is taken for a first one, where everything is new, when more than this share was. */
const firstLeast = 0.5
/** Of fewer chunks nothing can be said. */
const chunksLeast = 16
/** Much: at least this share of the guest, and so many times what is usual. */
const [shareLeast, shareFactor] = [0.1, 4]
/** Not to be compressed: this much larger than usual. */
const sizeFactor = 1.3
/** A jump: at least this share of the guest replaced, so many times what is usual is new, and each chunk stored nearly whole. */
const [jumpLeast, jumpFactor, wholeBytes] = [0.05, 10, 0.95 * defaultChunkBytes]
/** Of what could not be compressed before, at least this share is replaced. */
const wideJumpLeast = 0.25

/** What is counted of a backup. */
export interface ChangeFigures {
  readonly chunks: number
  readonly newChunks: number
  readonly newStoredBytes: number
}

export function figuresOf({ disks, trees }: Pick<Manifest, 'disks' | 'trees'>, chunkBytes: number): ChangeFigures {
  // A tree does not count its chunks; of many small files each chunk is nearly full.
  const chunks =
    sum(disks.map((disk) => disk.chunks)) + sum(trees.map((tree) => Math.ceil(tree.dataBytes / chunkBytes)))
  const newChunks = sum([...disks, ...trees].map((part) => part.newChunks))
  return { chunks, newChunks, newStoredBytes: sum([...disks, ...trees].map((part) => part.newStoredBytes)) }
}

export function changeOf({ chunks, newChunks, newStoredBytes }: ChangeFigures): Change {
  return {
    newShare: chunks === 0 ? 0 : Math.min(1, newChunks / chunks),
    bytesPerNewChunk: newChunks === 0 ? 0 : newStoredBytes / newChunks,
    newChunks,
    chunks,
  }
}

export interface ChangeHint {
  readonly newShare: number
  readonly usualShare: number
  readonly bytesPerNewChunk: number
  readonly usualBytes: number
}

/** Those that tell of habits. @param earlier of the guest, oldest first */
export function historyIn(earlier: readonly Change[]): readonly Change[] {
  const isFirst = (earlier[0]?.newShare ?? 0) > firstLeast
  return earlier.slice(isFirst ? 1 : 0).slice(-historyMost)
}

/** @param earlier as of `historyIn` */
export function changeHint(now: Change, earlier: readonly Change[]): ChangeHint | undefined {
  const history = historyIn(earlier)
  if (history.length < historyLeast || now.newChunks < chunksLeast) return undefined
  const usualShare = median(history.map(({ newShare }) => newShare))
  const sizes = history.filter(({ newChunks }) => newChunks > 0).map(({ bytesPerNewChunk }) => bytesPerNewChunk)
  // Who never had anything new has no habit to compare with: what is much is told from its share alone.
  const usualBytes = sizes.length === 0 ? 0 : median(sizes)
  const isMuch = now.newShare >= shareLeast && now.newShare >= usualShare * shareFactor
  const isDenser = now.bytesPerNewChunk >= usualBytes * sizeFactor
  const replaced = replacedShare(now, earlier.at(-1))
  const isJump = replaced >= jumpLeast && now.newShare >= usualShare * jumpFactor && now.bytesPerNewChunk >= wholeBytes
  return (isMuch && isDenser) || (isJump && (isDenser || replaced >= wideJumpLeast))
    ? { newShare: now.newShare, usualShare, bytesPerNewChunk: now.bytesPerNewChunk, usualBytes }
    : undefined
}

/** What is new beyond what the guest has grown by. */
function replacedShare({ newShare, chunks }: Change, before: Change | undefined): number {
  const grown = Math.max(0, chunks - (before?.chunks ?? 0))
  return chunks === 0 ? 0 : newShare - grown / chunks
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((all, one) => all + one, 0)
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const [below = 0, above = 0] = [sorted[middle - 1 + (sorted.length % 2)], sorted[middle]]
  return (below + above) / 2
}
