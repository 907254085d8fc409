/**
 * Segments grow in number with every backup; a few of like size become one, so that a look-up asks few of them and each
 * entry is rewritten only some ten times in its life.
 */
import { isFault } from '#base/fault.ts'
import { bestCopy } from './best-copy.ts'
import type { OpenDatastore } from '../datastore.ts'
import type { Keyring } from '../keys/keyring.ts'
import type { Lease } from '../lease.ts'
import { mendIndexAlone } from './repair.ts'
import type { Segment, SegmentEntry, SegmentNeeds } from './segment.ts'
import { writeSegment } from './segment.ts'

/** As many of like size make one of the next. */
const likeSized = 8
const tierOf = (count: number) => Math.floor(Math.log2(Math.max(1, count)) / 3)

/**
 * Harmless wherever it is cut off: an entry may stand in two segments. Only for who tidies alone: what is merged while
 * garbage is collected would bring back what was dropped.
 */
export async function mergeSegments(open: OpenDatastore, lease: Lease): Promise<void> {
  const { datastore, index, keyring } = open
  const needs = { place: datastore.place, keyring, random: datastore.deps.random, lease }
  await index.reload()
  if (index.damage.length > 0) await mendIndexAlone(open, lease)
  const tiers = Map.groupBy(index.segments, ({ count }) => tierOf(count))
  for (const tier of [...tiers.keys()].toSorted((a, b) => a - b)) {
    const segments = tiers.get(tier) ?? []
    if (segments.length < likeSized) continue
    if (!(await areWhole(segments, keyring))) {
      await mendIndexAlone(open, lease)
      return
    }
    await replaceSegments(needs, segments, { keeps: () => true, best: (copies) => bestCopy(open, copies) })
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
  const choices: number[] = []
  const noted = async (copies: readonly SegmentEntry[]) => choices[choices.push(await best(copies)) - 1] ?? 0
  for await (const entries of staying(segments, { keeps, best: noted })) {
    count += entries.length
    for (const { pack } of entries) packs.add(pack)
  }
  const asNoted = choices.values()
  const again = staying(segments, { keeps, best: async () => asNoted.next().value ?? 0 })
  const name = await writeSegment(needs, count, again, [...packs])
  for (const segment of segments) if (segment.name !== `segments/${name}`) await needs.place.remove(segment.name)
  return packs
}

/** Each id once. A copy that goes does not hide one that stays. */
async function* staying(segments: readonly Segment[], { keeps, best }: Staying): AsyncGenerator<SegmentEntry[]> {
  let held: SegmentEntry | undefined
  /** With the one that is held, where there are more. */
  let copies: SegmentEntry[] = []
  const chosen = async (one: SegmentEntry) => copies[await best(copies)] ?? one
  for await (const entries of allEntries(segments)) {
    const taken: SegmentEntry[] = []
    for (const entry of entries) {
      if (!keeps(entry)) continue
      if (held?.id.equals(entry.id)) {
        if (copies.length === 0) copies.push(held)
        copies.push(entry)
        continue
      }
      if (held) taken.push(copies.length > 0 ? await chosen(held) : held)
      held = entry
      if (copies.length > 0) copies = []
    }
    yield taken
  }
  if (held) yield [copies.length > 0 ? await chosen(held) : held]
}

/** Entries at once: a wait for each would take more time than the entry. */
const atOnce = 2_048

/** In order of their ids, every copy of each, some at a time. */
export async function* allEntries(segments: readonly Segment[]): AsyncGenerator<SegmentEntry[]> {
  const cursors: Cursor[] = []
  for (const segment of segments) {
    const cursor = await Cursor.of(segment)
    if (cursor) cursors.push(cursor)
  }
  let taken: SegmentEntry[] = []
  for (let least = leastOf(cursors); least; least = leastOf(cursors)) {
    taken.push(least.entry)
    if (!least.step() && !(await least.readOn())) cursors.splice(cursors.indexOf(least), 1)
    if (taken.length < atOnce) continue
    yield taken
    taken = []
  }
  yield taken
}

function leastOf(cursors: readonly Cursor[]): Cursor | undefined {
  let [least] = cursors
  for (const cursor of cursors) if (least && cursor.isBefore(least)) least = cursor
  return least
}

/** Where in a segment one is. */
class Cursor {
  readonly #rest: AsyncGenerator<SegmentEntry[], undefined>
  #entries: readonly SegmentEntry[]
  #at = 0
  entry: SegmentEntry
  /** The first bytes of its id as a number: decides nearly always. */
  #top: number

  private constructor(
    rest: AsyncGenerator<SegmentEntry[], undefined>,
    entries: readonly SegmentEntry[],
    first: SegmentEntry,
  ) {
    this.#rest = rest
    this.#entries = entries
    this.entry = first
    this.#top = topOf(first)
  }

  /** Nothing for one without entries. */
  static async of(segment: Segment): Promise<Cursor | undefined> {
    const rest = segment.entries()
    const { value: entries = [] } = await rest.next()
    const [first] = entries
    return first && new Cursor(rest, entries, first)
  }

  isBefore(other: Cursor): boolean {
    if (this.#top !== other.#top) return this.#top < other.#top
    return this.entry.id.compare(other.entry.id) < 0
  }

  /** @returns whether there is another one among what was read */
  step(): boolean {
    const entry = this.#entries[(this.#at += 1)]
    if (!entry) return false
    this.entry = entry
    this.#top = topOf(entry)
    return true
  }

  /** @returns whether there is more */
  async readOn(): Promise<boolean> {
    const { value: entries } = await this.#rest.next()
    if (!entries) return false
    this.#entries = entries
    this.#at = -1
    return this.step()
  }
}

function topOf({ id }: SegmentEntry): number {
  return id.readUIntBE(0, 6)
}
