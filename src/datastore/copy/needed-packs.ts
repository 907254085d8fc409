/**
 * Of all packs those that some backups need: a copy of a part of a datastore is made of them. It takes the keys, as what a
 * backup needs is sealed.
 *
 * Parts of the index name packs of all kinds, so they cannot be copied as they are: one that names what is not there would
 * make whoever writes into the copy rely on it. The copy gets one of its own instead, of the packs that came.
 */
import { Fault } from '#base/fault.ts'
import { LiveChunks } from '../tidy/live-chunks.ts'
import type { OpenDatastore } from '../datastore.ts'
import { shortIdBytes } from '../format.ts'
import { bestCopy } from '../tidy/best-copy.ts'
import { compareIds } from '../index/id-bytes.ts'
import { allEntries, gatherSegments } from '../index/merge.ts'
import type { Segment, SegmentEntry, SegmentNeeds } from '../index/segment.ts'
import { printPoint, type RestorePoint } from '../point.ts'

export interface Needed {
  readonly live: LiveChunks
  /** Of the index as it was then. */
  readonly segments: readonly Segment[]
  /** Backups of which it is known what they need. */
  readonly points: readonly RestorePoint[]
  /** What is wrong with the others. */
  readonly damages: readonly string[]
}

/** @throws Fault `damaged` when the index is: nobody takes over what it says then */
export async function neededChunks(open: OpenDatastore, points: readonly RestorePoint[]): Promise<Needed> {
  await open.index.reload()
  const { segments } = open.index
  for (const segment of segments) await segment.check(open.keyring)
  const live = await LiveChunks.of(segments)
  const [known, damages]: [RestorePoint[], string[]] = [[], []]
  for (const point of points) {
    try {
      await live.mark(open, await open.body(point))
      known.push(point)
    } catch (fault) {
      if (!(fault instanceof Fault) || (fault.kind !== 'damaged' && fault.kind !== 'missing')) throw fault
      // One that was removed meanwhile is not wanted any more.
      if (fault.kind === 'damaged') damages.push(`backup ${printPoint(point)}: ${fault.message}`)
    }
  }
  return { live, segments, points: known, damages }
}

/** What a copy finds by itself. */
export interface FoundThere {
  readonly segments: readonly Segment[]
  /** Whether it has a pack, and no damage was seen in it. */
  readonly isWhole: (pack: string) => boolean
}

/**
 * Packs with what the copy does not find: still to come, or to be named. That it names a pack is not enough, as whoever
 * collects garbage there drops single chunks of it from the index.
 */
export async function packsFor(
  open: OpenDatastore,
  { live, segments }: Needed,
  there: FoundThere,
): Promise<Set<string>> {
  const packs = new Set<string>()
  const found = foundEntries(there)
  let at = await found.next()
  for await (const copies of needed(segments, live)) {
    const [{ id } = { id: Buffer.alloc(shortIdBytes) }] = copies
    while (at.value && compareIds(at.value.id, 0, id, 0) < 0) at = await found.next()
    if (at.value && compareIds(at.value.id, 0, id, 0) === 0) continue
    if (copies.some(({ pack }) => packs.has(pack))) continue
    const best = copies[copies.length === 1 ? 0 : await bestCopy(open, copies)]
    if (best) packs.add(best.pack)
  }
  return packs
}

async function* foundEntries({ segments, isWhole }: FoundThere): AsyncGenerator<SegmentEntry, undefined> {
  for await (const entries of allEntries(segments)) {
    for (const entry of entries) if (isWhole(entry.pack)) yield entry
  }
}

/** All copies of each chunk that is needed. */
async function* needed(segments: readonly Segment[], live: LiveChunks): AsyncGenerator<readonly SegmentEntry[]> {
  let copies: SegmentEntry[] = []
  for await (const entries of allEntries(segments)) {
    for (const entry of entries) {
      const isAnother = copies[0] !== undefined && copies[0].id.compare(entry.id, 0, shortIdBytes) !== 0
      if (isAnother) {
        yield copies
        copies = []
      }
      if (live.has(entry.id)) copies.push(entry)
    }
  }
  if (copies.length > 0) yield copies
}

/** Makes what is in the packs known to the copy. @param to of the copy */
export async function namePacks(
  to: SegmentNeeds,
  open: OpenDatastore,
  { segments }: Needed,
  packs: ReadonlySet<string>,
): Promise<void> {
  await gatherSegments(to, segments, {
    keeps: ({ pack }) => packs.has(pack),
    best: (copies) => bestCopy(open, copies),
  })
}
