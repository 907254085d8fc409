/**
 * Gives back the space of chunks no backup needs, beside writers and readers.
 *
 * First copies of chunks nobody needs are condemned: from then on no writer takes them for there. Only a later look at all
 * backups, begun when no writer from before is left, may remove what is still not needed: whoever relied on a chunk has
 * said so by then. A removed backup that somebody still reads keeps what was condemned since they began. Packs with
 * nothing else in them go at once, packs that are mostly dead after what lives in them was written anew. What is locked
 * goes when its lock is over. Segments are merged by nobody else meanwhile: a merged one would bring back what was dropped. Cut off
 * anywhere, the next run goes on.
 */
import { seconds } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { bestCopy } from '../tidy/best-copy.ts'
import { suspectsFolder } from '../index/chunk-index.ts'
import { type Copy, condemn, removeList, removeLostList, timed, type TimedList } from '../index/condemned.ts'
import type { OpenDatastore } from '../datastore.ts'
import { gonePacks } from '../verify/gone-packs.ts'
import { backupsHit, markHit } from '../verify/hits.ts'
import { type Lease, type LiveLease, liveLeases } from '../places/lease.ts'
import { LiveChunks } from '../tidy/live-chunks.ts'
import { extendLocks } from '../locks/locks.ts'
import { replaceSegments } from '../index/merge.ts'
import { mostOf } from '../index/ordinals.ts'
import { mendIndexAlone } from '../tidy/repair.ts'
import { packName } from '../packs/pack.ts'
import { ownBody } from './own-body.ts'
import { printPoint, type RestorePoint } from '../point.ts'
import { reserveBytesFor } from '../places/reserve.ts'
import type { Segment, SegmentEntry } from '../index/segment.ts'
import { rewritePacks, thinPacks } from './thin-packs.ts'
import { Watched, type Watching } from './watched.ts'
import { readAhead } from '../window.ts'

/** Manifests on their way while maps are looked at. */
const bodiesAhead = 8
/** Names of backups in one message. */
const hitShown = 5

export interface CollectOptions extends Watching {
  /** Seconds between condemning and removing. */
  readonly graceSeconds?: number
  /** Entries of one part of the index; by default as many as are good. */
  readonly segmentEntries?: number
}

export interface Collected {
  readonly chunks: number
  readonly liveChunks: number
  readonly condemnedChunks: number
  readonly removedChunks: number
  readonly removedPacks: number
  readonly rewrittenPacks: number
  readonly freedBytes: number
  /** Packs nobody needs that are locked: a later run removes them. */
  readonly lockedPacks?: number
  /** When the last of those is free, in seconds since 1970. */
  readonly lockedUntil?: number
  /** Locks of what is needed that were made longer. */
  readonly extendedLocks?: number
  /** Why what is condemned was not removed yet. */
  readonly waitsFor?: string
}

/**
 * Where there is no room for what it has to write first, room that was set aside for it is used.
 * @throws Fault `conflict` when somebody else collects; `damaged` when a manifest or map cannot be read, or a chunk of a backup is
 *   nowhere: then nothing goes, and the backups that are hit say so;
 *   `unavailable` when others took the collector for dead meanwhile
 */
export async function collectGarbage(open: OpenDatastore, options: CollectOptions = {}): Promise<Collected> {
  open.keyring.requireReading()
  const { reserve } = open.datastore.place
  try {
    return await collect(open, options)
  } catch (fault) {
    if (!isFault(fault, 'exhausted') || !(await reserve?.free())) throw fault
    return await collect(open, options)
  } finally {
    await reserve?.keep(reserveBytesFor(mostOf(open.index.segments)))
  }
}

async function collect(open: OpenDatastore, options: CollectOptions): Promise<Collected> {
  await using lease = await open.datastore.tryTidy()
  if (!lease)
    throw new Fault('conflict', 'garbage is being collected already, the index is being merged, or a copy made')
  if (open.index.isIncomplete) await mendIndexAlone(open, lease, options.signal)
  const attempt = () => new Collector(open, lease, options).run()
  try {
    return await attempt()
  } catch (fault) {
    if (!isFault(fault, 'damaged')) throw fault
    // It may be the index alone that is damaged, or of which a part is lost: packs say themselves what is in them.
    const isMended = (await mendIndexAlone(open, lease, options.signal)) !== undefined
    const left = isMended ? await attempt().catch(ifDamaged) : fault
    if (!(left instanceof Fault)) return left
    throw await namingHit(open, left, options.signal)
  }
}

function ifDamaged(fault: unknown): Fault {
  if (!isFault(fault, 'damaged')) throw fault
  return fault
}

/**
 * Nobody else looks for every chunk of every backup day by day. Those that lack one say so from then on: none is built upon
 * unseen, and the next backup of the guest stores anew what the guest still has.
 */
async function namingHit(open: OpenDatastore, fault: Fault, signal: AbortSignal | undefined): Promise<Fault> {
  const hit = await backupsHit(open, new Set(), signal)
  for (const name of hit) await markHit(open.datastore, name, fault.message)
  if (hit.length === 0) return fault
  const more = hit.length > hitShown ? ` and ${hit.length - hitShown} more` : ''
  return new Fault('damaged', `${fault.message} (hits ${hit.slice(0, hitShown).join(', ')}${more})`, {
    remedy:
      'Back up their guests again, which stores anew what they still have; then verify these backups, and remove those ' +
      'that are damaged still. Nothing is collected before.',
    cause: fault,
  })
}

interface Marked {
  readonly live: LiveChunks
  /** Of the index as it was before any manifest was looked at. */
  readonly segments: readonly Segment[]
  /** Who wrote before that, and who reads what was removed. */
  readonly holders: readonly LiveLease[]
}

class Collector {
  readonly #open: OpenDatastore
  readonly #lease: Lease
  readonly #options: CollectOptions
  /** Packs that would have gone, and until when they cannot. */
  readonly #locked = new Map<string, number>()
  readonly #watched: Watched
  #isProven = false

  constructor(open: OpenDatastore, lease: Lease, options: CollectOptions) {
    this.#open = open
    this.#lease = lease
    this.#options = options
    this.#watched = new Watched(options)
  }

  async run(): Promise<Collected> {
    const { graceSeconds = 0 } = this.#options
    const { place, deps } = this.#open.datastore
    const orphans = await this.#orphans()
    const first = await this.#mark()
    if (orphans.length > 0) await this.#proveIndex(first.segments)
    // Where the index is lost every pack looks like one: only now it is known that no backup needs what is in no segment.
    // And before anything is written: that helps when the place is full.
    const freedBytes = await this.#removePacks(orphans)
    await this.#dropLostLists(first.segments)
    const condemned = await this.#condemn(first)
    const facts = { chunks: first.live.count, liveChunks: first.live.live, condemnedChunks: condemned }
    await this.#open.index.reload()
    const lists = await timed(place, this.#open.index.condemned, {
      nowSeconds: () => seconds(deps.clock),
      leases: async () => (await liveLeases({ place, ...deps })).map(({ name }) => name),
    })
    const isOld = ({ time }: TimedList) => time + graceSeconds <= seconds(deps.clock)
    // Another look, for what was relied upon between the first and the list.
    const second = lists.some(isOld) ? await this.#mark(first.live) : first
    const isBeside = ({ beside }: TimedList) => second.holders.some(({ name }) => beside.has(name))
    const ripe = lists.filter((one) => isOld(one) && !isBeside(one))
    const removed = await this.#remove(second, ripe)
    // Last: as long as it is there, writers take nothing of it for there.
    for (const one of ripe) await removeList(place, one)
    await this.#open.index.reload()
    const extendedLocks = await this.#extendLocks(second, ripe)
    return {
      ...facts,
      ...removed,
      removedPacks: removed.removedPacks + orphans.filter((pack) => !this.#locked.has(pack)).length,
      freedBytes: removed.freedBytes + freedBytes,
      ...(extendedLocks > 0 && { extendedLocks }),
      ...(this.#locked.size > 0 && { lockedPacks: this.#locked.size, lockedUntil: Math.max(...this.#locked.values()) }),
      ...(ripe.length < lists.length && { waitsFor: waitsFor(lists, second.holders, graceSeconds) }),
    }
  }

  /**
   * What was in a list that cannot be read is condemned anew. Packs may be gone by it already that the index still names:
   * nobody is to rely on those when the list is not there any more to say so.
   */
  async #dropLostLists(segments: readonly Segment[]): Promise<void> {
    const { place, deps } = this.#open.datastore
    const lost = this.#open.index.condemned.filter(({ isLost }) => isLost)
    if (lost.length === 0) return
    for (const pack of await gonePacks(place, segments)) await place.put(`${suspectsFolder}${pack}`, Buffer.alloc(0))
    for (const list of lost) {
      deps.log.warn('a list of what is no longer needed is damaged, and made anew', { list: list.name })
      await removeLostList(place, list)
    }
  }

  /** Before anything goes by what it says. One that is damaged could leave out a pack, or name another one. */
  async #proveIndex(segments: readonly Segment[]): Promise<void> {
    if (this.#isProven) return
    for (const segment of segments) await segment.check(this.#open.keyring)
    this.#isProven = true
  }

  /** Of packs a backup needs; and, while somebody is at work, of those they may have come to rely on. */
  async #extendLocks({ live, holders }: Marked, ripe: readonly TimedList[]): Promise<number> {
    const { datastore, index } = this.#open
    if (!datastore.place.lock) return 0
    const packs = new Set<string>()
    const isDoomed = ({ id, pack }: Copy) => ripe.some(({ list }) => list.hasCopy(id, pack))
    for await (const entries of this.#watched.entriesOf(index.segments)) {
      for (const entry of entries) {
        if (live.has(entry.id) || (holders.length > 0 && !isDoomed(entry))) packs.add(entry.pack)
      }
    }
    return extendLocks(datastore, packs)
  }

  async #writers(): Promise<LiveLease[]> {
    const { place, deps } = this.#open.datastore
    return (await liveLeases({ place, ...deps })).filter(({ kind }) => kind === 'write')
  }

  /** Those of backups that were removed. */
  async #readersBeside(points: ReadonlySet<string>): Promise<LiveLease[]> {
    const { place, deps } = this.#open.datastore
    const leases = await liveLeases({ place, ...deps })
    return leases.filter(({ reads }) => reads !== undefined && !points.has(reads))
  }

  /** Packs no segment names, left by writers that died; and clears away what those were writing. */
  async #orphans(): Promise<string[]> {
    const { place } = this.#open.datastore
    if ((await this.#writers()).length > 0) return []
    const [packs, staged]: [string[], string[]] = [[], []]
    for await (const { name } of place.list('packs/')) packs.push(name.slice(-64))
    for await (const { name } of place.list('tmp/')) staged.push(name)
    // Who began and ended in between told the index of its packs; who is still there may not have.
    if ((await this.#writers()).length > 0) return []
    await this.#open.index.reload()
    const named = new Set(this.#open.index.segments.flatMap((segment) => segment.packs))
    for (const name of staged) await place.remove(name)
    return packs.filter((pack) => !named.has(pack))
  }

  /**
   * In this order: who writes, what is there, who needs it. What comes later relies on what was not condemned before.
   * @param before what was needed at an earlier look and is again; what was needed then alone is none of this run's
   */
  async #mark(before?: LiveChunks): Promise<Marked> {
    const { datastore, index } = this.#open
    const writers = await this.#writers()
    await index.reload()
    const { segments } = index
    const live = before ?? (await LiveChunks.of(segments))
    const points = await datastore.points()
    // Behind that look: who reads one of them that is removed from now on relies on nothing condemned before.
    const readers = await this.#readersBeside(new Set(points.map(printPoint)))
    const bodies = readAhead(points, bodiesAhead, async (point) => {
      return { point, body: await this.#unlessRemoved(point, () => ownBody(this.#open, point)) }
    })
    let looked = 0
    for await (const { point, body } of bodies) {
      this.#watched.goOn()
      if (body) await this.#unlessRemoved(point, () => live.mark(this.#open, body))
      looked += 1
      this.#watched.tell('backups', looked, points.length)
    }
    // What was found by asking packs is named by no part of the index, and would look like garbage.
    if (index.isIncomplete) throw new Fault('damaged', `the index of datastore '${datastore.place.label}' is damaged`)
    return { live, segments, holders: [...writers, ...readers] }
  }

  /** What fails because the backup is removed meanwhile has not failed. */
  async #unlessRemoved<T>(point: RestorePoint, act: () => Promise<T>): Promise<T | undefined> {
    try {
      return await act()
    } catch (fault) {
      const points = await this.#open.datastore.points()
      if (points.some((one) => printPoint(one) === printPoint(point))) throw fault
      return undefined
    }
  }

  /** @returns how many more */
  async #condemn({ live, segments }: Marked): Promise<number> {
    const { place, deps } = this.#open.datastore
    const known = this.#open.index.condemned
    const isDead = ({ id, pack }: Copy) => !live.has(id) && !known.some((list) => list.hasCopy(id, pack))
    const dead = async function* (all: AsyncIterable<SegmentEntry[]>) {
      for await (const entries of all) yield entries.filter(isDead)
    }
    return condemn(place, deps.random, dead(this.#watched.entriesOf(segments)))
  }

  async #remove({ live, segments }: Marked, ripe: readonly TimedList[]) {
    const isDoomed = ({ id, pack }: Copy) => !live.has(id) && ripe.some(({ list }) => list.hasCopy(id, pack))
    const living = new Map<string, number>()
    const hit = new Set<string>()
    let removedChunks = 0
    if (ripe.length > 0) {
      for await (const entries of this.#watched.entriesOf(segments)) {
        for (const entry of entries) {
          const { pack, length } = entry
          if (isDoomed(entry)) {
            hit.add(pack)
            removedChunks += 1
          } else living.set(pack, (living.get(pack) ?? 0) + length)
        }
      }
    }
    if (hit.size > 0) await this.#proveIndex(segments)
    // Where nothing lives nothing has to be written first: that helps when the place is full.
    const dead = [...hit].filter((pack) => !living.has(pack))
    let freedBytes = await this.#removePacks(dead)
    const stays = (entry: SegmentEntry) => !isDoomed(entry)
    const thin = await thinPacks(this.#open, hit, living)
    const { packs: rewritten, bytes: written } = await rewritePacks(
      this.#open,
      thin,
      { segments, stays },
      { watched: this.#watched, lease: this.#lease },
    )
    const spare: string[] = []
    if (hit.size > 0) {
      const isGone = new Set(rewritten)
      const { place, deps } = this.#open.datastore
      const needs = { place, keyring: this.#open.keyring, random: deps.random, lease: this.#lease }
      // Each is asked for twice.
      const tick = this.#watched.ticker('index', 2 * mostOf(segments))
      const keeps = (entry: SegmentEntry) => {
        tick()
        return !isDoomed(entry) && !isGone.has(entry.pack)
      }
      const best = (copies: readonly SegmentEntry[]) => bestCopy(this.#open, copies)
      const most = this.#options.segmentEntries
      const named = await replaceSegments(needs, segments, { keeps, best, most })
      // Packs of which every chunk lies in another one as well.
      const had = new Set(segments.flatMap(({ packs }) => packs))
      spare.push(...[...had].filter((pack) => !named.has(pack) && !isGone.has(pack) && !dead.includes(pack)))
    }
    freedBytes += (await this.#removePacks([...rewritten, ...spare])) - written
    const isRemoved = (pack: string) => !this.#locked.has(pack)
    const removedPacks = [...dead, ...spare].filter(isRemoved).length
    return { removedChunks, removedPacks, rewrittenPacks: rewritten.length, freedBytes }
  }

  /** @returns bytes given back */
  async #removePacks(packs: readonly string[]): Promise<number> {
    const { place } = this.#open.datastore
    let [bytes, looked] = [0, 0]
    for (const pack of packs) {
      looked += 1
      this.#watched.tell('remove', looked, packs.length, bytes)
      // Another collector would not know what this one has seen.
      await this.#lease.requireHeld()
      // Nobody knows of it any more, so the next run takes it for one that was left.
      const until = await place.lock?.until(packName(pack))
      if (until !== undefined) {
        this.#locked.set(pack, until)
        continue
      }
      const size = await place.sizeOf(packName(pack)).catch(() => 0)
      if (await place.remove(packName(pack))) bytes += size
      await place.remove(`${suspectsFolder}${pack}`)
    }
    return bytes
  }
}

function waitsFor(lists: readonly TimedList[], holders: readonly LiveLease[], graceSeconds: number): string {
  const holder = holders.find(({ name }) => lists.some(({ beside }) => beside.has(name)))
  if (!holder) return `${graceSeconds} seconds to pass`
  const what = holder.kind === 'write' ? 'a backup that is being made' : 'a removed backup that is still read'
  return `${what} by ${holder.by}`
}
