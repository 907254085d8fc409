/**
 * Segments grow in number with every backup; a few of like size become one, so that a look-up asks few of them and each
 * entry is rewritten only some ten times in its life.
 */
import { isFault } from '#base/fault.ts'
import type { OpenDatastore } from '../datastore.ts'
import { segmentPacksMaximum } from '../format.ts'
import { mergedEntriesMaximum, replaceSegments } from '../index/merge.ts'
import type { Segment } from '../index/segment.ts'
import type { Keyring } from '../keys/keyring.ts'
import type { Lease } from '../places/lease.ts'
import { bestCopy } from './best-copy.ts'
import { mendIndexAlone } from './repair.ts'

/** As many of like size make one of the next. */
const likeSized = 8
const tierOf = (count: number) => Math.floor(Math.log2(Math.max(1, count)) / 3)

/**
 * Harmless wherever it is cut off: an entry may stand in two segments. Only for who tidies alone: what is merged while
 * garbage is collected would bring back what was dropped.
 * @param most entries of one segment
 */
export async function mergeSegments(open: OpenDatastore, lease: Lease, most = mergedEntriesMaximum): Promise<void> {
  const { datastore, index, keyring } = open
  const needs = { place: datastore.place, keyring, random: datastore.deps.random, lease }
  await index.reload()
  if (index.damage.length > 0) await mendIndexAlone(open, lease)
  // Of what is nearly as large as it may be as many would be made again, each time.
  const isFull = ({ count, packs }: Segment) => count > most / 2 || packs.length > segmentPacksMaximum / 2
  const mergeable = index.segments.filter((segment) => !isFull(segment))
  const tiers = Map.groupBy(mergeable, ({ count }) => tierOf(count))
  for (const tier of [...tiers.keys()].toSorted((a, b) => a - b)) {
    const segments = tiers.get(tier) ?? []
    if (segments.length < likeSized) continue
    if (!(await areWhole(segments, keyring))) {
      await mendIndexAlone(open, lease)
      return
    }
    await replaceSegments(needs, segments, { keeps: () => true, best: (copies) => bestCopy(open, copies), most })
  }
  await index.reload()
}

async function areWhole(segments: readonly Segment[], keyring: Keyring): Promise<boolean> {
  try {
    for (const segment of segments) await segment.check(keyring)
    return true
  } catch (fault) {
    if (isFault(fault, 'damaged')) return false
    throw fault
  }
}
