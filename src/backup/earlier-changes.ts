/**
 * How a guest's backups changed, also those that are removed by now: each manifest carries the figures of the latest before it, so
 * that a guest's habits are known where few of its backups are kept.
 */
import type { Manifest } from '#datastore/points/manifest.ts'
import { type ChangeFigures, figuresOf } from './change-hint.ts'

/** One odd backup among so many does not move their median. */
const carriedMost = 8

export interface DatedFigures extends ChangeFigures {
  /** Of the backup, in seconds since 1970. */
  readonly time: number
}

type Known = Pick<Manifest, 'point' | 'disks' | 'trees' | 'facts'>

/** Of backups of a guest, and of those before them as far as they carry it; oldest first. */
export function figuresFrom(manifests: readonly Known[], chunkBytes: number): DatedFigures[] {
  const all = new Map(manifests.flatMap(carriedBy).map((figures) => [figures.time, figures]))
  for (const manifest of manifests) {
    const { time } = manifest.point
    all.set(time, { time, ...figuresOf(manifest, chunkBytes) })
  }
  return [...all.values()].toSorted((a, b) => a.time - b.time)
}

/** What the next manifest carries. @param figures oldest first */
export function carriedOn(figures: readonly DatedFigures[]): readonly DatedFigures[] {
  return figures.slice(-carriedMost)
}

function carriedBy({ facts: { changes } }: Pick<Manifest, 'facts'>): readonly DatedFigures[] {
  return Array.isArray(changes) ? carriedOn(changes.flatMap((one) => figuresIn(one) ?? [])) : []
}

/** Nothing for what is none. */
function figuresIn(one: unknown): DatedFigures | undefined {
  if (typeof one !== 'object' || one === null) return undefined
  const { time = -1, chunks = -1, newChunks = -1, newStoredBytes = -1 } = one as Partial<DatedFigures>
  const figures = { time, chunks, newChunks, newStoredBytes }
  return Object.values(figures).every((value) => Number.isSafeInteger(value) && value >= 0) ? figures : undefined
}
