/**
 * Of all packs those that some backups need: a copy of a part of a datastore is made of them. It takes the keys, as what a
 * backup needs is sealed.
 *
 * Parts of the index name packs of all kinds, so they cannot be copied as they are: one that names what is not there would
 * make whoever writes into the copy rely on it. The copy gets one of its own instead, of the packs that came.
 */
import { Fault } from '#base/fault.ts'
import { LiveChunks } from '../collect/live-chunks.ts'
import type { OpenDatastore } from '../datastore.ts'
import { shortIdBytes } from '../format.ts'
import { bestCopy } from '../index/best-copy.ts'
import { allEntries, gatherSegments } from '../index/merge.ts'
import type { SegmentEntry, SegmentNeeds } from '../index/segment.ts'
import { printPoint, type RestorePoint } from '../point.ts'

export interface Needed {
  /** Names of packs that are still to come, or to be named. */
  readonly packs: ReadonlySet<string>
  /** Backups of which it is known what they need. */
  readonly points: readonly RestorePoint[]
  /** What is wrong with the others. */
  readonly damages: readonly string[]
}

/**
 * @param isNamed whether the copy has a pack, and can find what is in it
 * @throws Fault `damaged` when the index is: nobody takes over what it says then
 */
export async function neededPacks(
  open: OpenDatastore,
  points: readonly RestorePoint[],
  isNamed: (pack: string) => boolean,
): Promise<Needed> {
  await open.index.reload()
  for (const segment of open.index.segments) await segment.check(open.keyring)
  const live = await LiveChunks.of(open.index.segments)
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
  const packs = new Set<string>()
  for await (const copies of needed(open, live)) {
    if (copies.some(({ pack }) => isNamed(pack) || packs.has(pack))) continue
    const best = copies[copies.length === 1 ? 0 : await bestCopy(open, copies)]
    if (best) packs.add(best.pack)
  }
  return { packs, points: known, damages }
}

/** All copies of each chunk that is needed. */
async function* needed(open: OpenDatastore, live: LiveChunks): AsyncGenerator<readonly SegmentEntry[]> {
  let copies: SegmentEntry[] = []
  for await (const entries of allEntries(open.index.segments)) {
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
export async function namePacks(to: SegmentNeeds, open: OpenDatastore, packs: ReadonlySet<string>): Promise<void> {
  await gatherSegments(to, open.index.segments, {
    keeps: ({ pack }) => packs.has(pack),
    best: (copies) => bestCopy(open, copies),
  })
}
