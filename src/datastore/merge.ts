/**
 * Segments grow in number with every backup; a few of like size become one, so that a look-up asks few of them and each
 * entry is rewritten only some ten times in its life.
 */
import { bestCopy } from './best-copy.ts'
import type { OpenDatastore } from './datastore.ts'
import type { Segment, SegmentEntry, SegmentNeeds } from './segment.ts'
import { writeSegment } from './segment.ts'

/** As many of like size make one of the next. */
const likeSized = 8
const tierOf = (count: number) => Math.floor(Math.log2(Math.max(1, count)) / 3)

/**
 * Harmless wherever it is cut off: an entry may stand in two segments. Only for who tidies alone: what is merged while
 * garbage is collected would bring back what was dropped.
 */
export async function mergeSegments(open: OpenDatastore): Promise<void> {
  const { datastore, index, keyring } = open
  const needs = { place: datastore.place, keyring, random: datastore.deps.random }
  await index.reload()
  const tiers = Map.groupBy(index.segments, ({ count }) => tierOf(count))
  for (const tier of [...tiers.keys()].toSorted((a, b) => a - b)) {
    const segments = tiers.get(tier) ?? []
    if (segments.length < likeSized) continue
    for (const segment of segments) await segment.check(needs.keyring)
    await replaceSegments(needs, segments, { keeps: () => true, best: (copies) => bestCopy(open, copies) })
  }
  await index.reload()
}

export interface Staying {
  readonly keeps: (entry: SegmentEntry) => boolean
  /** The number of the one that stays, of several copies of a chunk. */
  readonly best: (copies: readonly SegmentEntry[]) => Promise<number>
}

/**
 * One segment in the place of several, which the caller has checked: what is wrong with one would look right afterwards.
 * @returns the packs it names
 */
export async function replaceSegments(
  needs: SegmentNeeds,
  segments: readonly Segment[],
  { keeps, best }: Staying,
): Promise<ReadonlySet<string>> {
  let count = 0
  const packs = new Set<string>()
  // A copy that goes must not hide one that stays.
  const staying = (choose: Staying['best']) => onlyBest(only(allEntries(segments), keeps), choose)
  const choices: number[] = []
  const noted = async (copies: readonly SegmentEntry[]) => choices[choices.push(await best(copies)) - 1] ?? 0
  for await (const { pack } of staying(noted)) {
    count += 1
    packs.add(pack)
  }
  const asNoted = choices.values()
  const again = async () => asNoted.next().value ?? 0
  const name = await writeSegment(needs, count, staying(again), [...packs])
  for (const segment of segments) if (segment.name !== `segments/${name}`) await needs.place.remove(segment.name)
  return packs
}

async function* only(
  entries: AsyncIterable<SegmentEntry>,
  keeps: (entry: SegmentEntry) => boolean,
): AsyncGenerator<SegmentEntry> {
  for await (const entry of entries) if (keeps(entry)) yield entry
}

/** In order of their ids, each id once: as the first of the segments has it. */
export async function* mergedEntries(segments: readonly Segment[]): AsyncGenerator<SegmentEntry> {
  yield* once(allEntries(segments))
}

async function* once(entries: AsyncIterable<SegmentEntry>): AsyncGenerator<SegmentEntry> {
  let last: Buffer | undefined
  for await (const entry of entries) {
    if (!last?.equals(entry.id)) yield entry
    last = entry.id
  }
}

/** Each id once. */
async function* onlyBest(entries: AsyncIterable<SegmentEntry>, best: Staying['best']): AsyncGenerator<SegmentEntry> {
  let held: SegmentEntry | undefined
  let copies: SegmentEntry[] = []
  const chosen = async (one: SegmentEntry) => copies[await best(copies)] ?? one
  for await (const entry of entries) {
    if (held?.id.equals(entry.id)) {
      if (copies.length === 0) copies.push(held)
      copies.push(entry)
      continue
    }
    if (held) yield copies.length > 0 ? await chosen(held) : held
    held = entry
    if (copies.length > 0) copies = []
  }
  if (held) yield copies.length > 0 ? await chosen(held) : held
}

interface Cursor {
  readonly entries: AsyncGenerator<SegmentEntry>
  entry: SegmentEntry
  /** The first bytes of its id as a number: decides nearly always. */
  top: number
}

/** In order of their ids, every copy of each. */
export async function* allEntries(segments: readonly Segment[]): AsyncGenerator<SegmentEntry> {
  let cursors: Cursor[] = []
  for (const segment of segments) {
    const entries = segment.entries()
    const { value, done } = await entries.next()
    if (!done) cursors.push({ entries, entry: value, top: topOf(value) })
  }
  for (let [least] = cursors; least; least = cursors[0]) {
    for (const cursor of cursors) {
      if (cursor.top < least.top || (cursor.top === least.top && cursor.entry.id.compare(least.entry.id) < 0)) {
        least = cursor
      }
    }
    yield least.entry
    const { value, done } = await least.entries.next()
    if (done) cursors = cursors.filter((cursor) => cursor !== least)
    else {
      least.entry = value
      least.top = topOf(value)
    }
  }
}

function topOf({ id }: SegmentEntry): number {
  return id.readUIntBE(0, 6)
}
