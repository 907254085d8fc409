/**
 * Segments grow in number with every backup; a few of like size become one, so that a look-up asks few of them and each
 * entry is rewritten only some ten times in its life.
 */
import { isFault } from '#base/fault.ts'
import { bestCopy } from './best-copy.ts'
import { compareIds, wordAt } from './id-bytes.ts'
import type { OpenDatastore } from '../datastore.ts'
import type { Keyring } from '../keys/keyring.ts'
import type { Lease } from '../lease.ts'
import { mendIndexAlone } from './repair.ts'
import type { Segment, SegmentEntry, SegmentNeeds } from './segment.ts'
import { damagedSegment, segmentEntryBytes, writeSegment } from './segment.ts'

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
  staying: Staying,
): Promise<ReadonlySet<string>> {
  const { name, packs } = await gatherSegments(needs, segments, staying)
  for (const segment of segments) if (segment.name !== `segments/${name}`) await needs.place.remove(segment.name)
  return packs
}

/** One segment of what stays of several; those may lie elsewhere, and are left alone. */
export async function gatherSegments(
  needs: SegmentNeeds,
  segments: readonly Segment[],
  { keeps, best }: Staying,
): Promise<{ readonly name: string | undefined; readonly packs: ReadonlySet<string> }> {
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
  return { name, packs }
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

/** In order of their ids, every copy of each, some at a time; of several copies those of earlier segments first. */
export async function* allEntries(segments: readonly Segment[]): AsyncGenerator<SegmentEntry[]> {
  const cursors: Cursor[] = []
  for (const [number, segment] of segments.entries()) {
    const cursor = await Cursor.of(segment, number)
    if (cursor) cursors.push(cursor)
  }
  for (let at = cursors.length >> 1; at >= 0; at -= 1) sink(cursors, at)
  let taken: SegmentEntry[] = []
  for (let least = cursors[0]; least; least = cursors[0]) {
    taken.push(least.entry())
    if (!least.step() && !(await least.readOn())) {
      const last = cursors.pop()
      if (last && last !== least) cursors[0] = last
    }
    sink(cursors, 0)
    if (taken.length < atOnce) continue
    yield taken
    taken = []
  }
  yield taken
}

/** Puts one where it belongs in a heap, of which the first is the least. */
function sink(heap: Cursor[], from: number): void {
  const moved = heap[from]
  let at = from
  for (let child = 2 * at + 1; moved && child < heap.length; child = 2 * at + 1) {
    const left = heap[child]
    const right = heap[child + 1]
    const isRight = left !== undefined && right !== undefined && right.isBefore(left)
    const less = isRight ? right : left
    if (!less?.isBefore(moved)) break
    heap[at] = less
    at = isRight ? child + 1 : child
  }
  if (moved) heap[at] = moved
}

/** Where in a segment one is. Entries become objects one by one: those that lie ahead would fill the memory with what grows old. */
class Cursor {
  readonly #segment: Segment
  readonly #number: number
  readonly #rest: AsyncGenerator<Buffer, undefined>
  #window: Buffer
  #at = 0
  /** The first bytes of its id as a number: decides nearly always. */
  #top: number

  private constructor(
    segment: Segment,
    number: number,
    { rest, window }: { readonly rest: AsyncGenerator<Buffer, undefined>; readonly window: Buffer },
  ) {
    this.#segment = segment
    this.#number = number
    this.#rest = rest
    this.#window = window
    this.#top = wordAt(window, 0)
  }

  /** Nothing for one without entries. */
  static async of(segment: Segment, number: number): Promise<Cursor | undefined> {
    const rest = segment.windows()
    const { value: window } = await rest.next()
    return window && new Cursor(segment, number, { rest, window })
  }

  /** @throws Fault `damaged` */
  entry(): SegmentEntry {
    return this.#segment.entryAt(this.#window, this.#at)
  }

  isBefore(other: Cursor): boolean {
    if (this.#top !== other.#top) return this.#top < other.#top
    const order = compareIds(this.#window, this.#at, other.#window, other.#at)
    return order < 0 || (order === 0 && this.#number < other.#number)
  }

  /** @returns whether there is another one among what was read. @throws Fault `damaged` when they are in no order */
  step(): boolean {
    const next = this.#at + segmentEntryBytes
    if (next >= this.#window.length) return false
    this.#moveTo(this.#window, next)
    return true
  }

  /** @returns whether there is more */
  async readOn(): Promise<boolean> {
    const { value: window } = await this.#rest.next()
    if (!window) return false
    this.#moveTo(window, 0)
    return true
  }

  #moveTo(window: Buffer, at: number): void {
    const top = wordAt(window, at)
    const isBehind = top > this.#top || (top === this.#top && compareIds(this.#window, this.#at, window, at) < 0)
    if (!isBehind) throw damagedSegment(this.#segment.name, 'its entries are not in order')
    this.#window = window
    this.#at = at
    this.#top = top
  }
}
