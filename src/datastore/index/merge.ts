/** One segment made of what stays of several, or as few as can be where one would be too large. */
import { compareIds, wordAt } from './id-bytes.ts'
import { segmentEntriesMaximum, segmentPacksMaximum } from '../format.ts'
import type { Segment, SegmentEntry, SegmentNeeds } from './segment.ts'
import { damagedSegment, segmentEntryBytes, segmentName, SegmentWriter } from './segment.ts'

/**
 * Entries of a segment that is made of others: half of what there may be. With its filter it has less than 5 GiB, the most
 * that an object store takes at once.
 */
export const mergedEntriesMaximum = segmentEntriesMaximum / 2

export interface Staying {
  readonly keeps: (entry: SegmentEntry) => boolean
  /** The number of the one that stays, of several copies of a chunk. */
  readonly best: (copies: readonly SegmentEntry[]) => Promise<number>
  /** Entries of one segment; by default as many as are good. */
  readonly most?: number | undefined
}

/**
 * As few segments as can be in the place of several, which the caller has checked: what is wrong with one would look right afterwards.
 * @returns the packs they name
 */
export async function replaceSegments(
  needs: SegmentNeeds,
  segments: readonly Segment[],
  staying: Staying,
): Promise<ReadonlySet<string>> {
  const { names, packs } = await gatherSegments(needs, segments, staying)
  for (const { name } of segments) if (!names.has(name)) await needs.place.remove(name)
  return packs
}

/** One segment of what stays of several, or more where it would be too large; those may lie elsewhere, and are left alone. */
export async function gatherSegments(
  needs: SegmentNeeds,
  segments: readonly Segment[],
  { keeps, best, most = mergedEntriesMaximum }: Staying,
): Promise<{ readonly names: ReadonlySet<string>; readonly packs: ReadonlySet<string> }> {
  const counts = new Map<string, number>()
  const choices: number[] = []
  const noted = async (copies: readonly SegmentEntry[]) => choices[choices.push(await best(copies)) - 1] ?? 0
  for await (const entries of staying(segments, { keeps, best: noted })) {
    for (const { pack } of entries) counts.set(pack, (counts.get(pack) ?? 0) + 1)
  }
  await using undo = new AsyncDisposableStack()
  const parts: SegmentWriter[] = []
  const partOf = new Map<string, SegmentWriter>()
  for (const { packs, count } of sharedOut(counts, most)) {
    const part = undo.use(await SegmentWriter.create(needs, count, packs))
    parts.push(part)
    for (const pack of packs) partOf.set(pack, part)
  }
  const asNoted = choices.values()
  for await (const entries of staying(segments, { keeps, best: async () => asNoted.next().value ?? 0 })) {
    if (parts.length === 1) await parts[0]?.add(entries)
    else for (const [part, some] of Map.groupBy(entries, ({ pack }) => partOf.get(pack))) await part?.add(some)
  }
  const names = new Set<string>()
  for (const part of parts) names.add(segmentName(await part.put()))
  return { names, packs: new Set(counts.keys()) }
}

interface Share {
  readonly packs: string[]
  count: number
}

/** By packs, and not by ids: each part would name nearly all packs then, and who opens the index keeps those names in memory. */
function sharedOut(counts: ReadonlyMap<string, number>, most: number): Share[] {
  const shares: Share[] = []
  for (const [pack, count] of counts) {
    let share = shares.at(-1)
    if (!share || share.count + count > most || share.packs.length === segmentPacksMaximum) {
      share = { packs: [], count: 0 }
      shares.push(share)
    }
    share.packs.push(pack)
    share.count += count
  }
  return shares
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
