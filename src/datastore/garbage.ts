/**
 * Gives back the space of chunks no backup needs, beside writers and readers.
 *
 * First chunks nobody needs are condemned: from then on no writer takes them for there. When the list is old enough and no
 * writer from before it is left, what is still not needed goes: packs with nothing else in them at once, packs that are
 * mostly dead after what lives in them was written anew. Cut off anywhere, the next run goes on.
 */
import { seconds } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { condemnedFolder, printCondemned, readCondemned } from './chunk-index.ts'
import { ChunkWriter } from './chunk-writer.ts'
import type { OpenDatastore } from './datastore.ts'
import { IdList } from './id-list.ts'
import { shortIdBytes } from './format.ts'
import { liveLeases } from './lease.ts'
import { LiveChunks } from './live-chunks.ts'
import { replaceSegments } from './merge.ts'
import { goOn } from './go-on.ts'
import { packName } from './pack.ts'

/** A pack with less of it alive is written anew. */
const thin = 0.6

export interface CollectOptions {
  /** Seconds between condemning and removing. */
  readonly graceSeconds?: number
  readonly signal?: AbortSignal | undefined
  readonly onPhase?: ((phase: 'mark' | 'condemn' | 'rewrite' | 'remove') => void) | undefined
}

export interface Collected {
  readonly chunks: number
  readonly liveChunks: number
  readonly condemnedChunks: number
  readonly removedChunks: number
  readonly removedPacks: number
  readonly rewrittenPacks: number
  readonly freedBytes: number
  /** Why what is condemned was not removed yet. */
  readonly waitsFor?: string
}

/** @throws Fault `conflict` when somebody else collects; `damaged` when a manifest or map cannot be read: then nothing goes */
export async function collectGarbage(open: OpenDatastore, options: CollectOptions = {}): Promise<Collected> {
  const { datastore } = open
  const { place, deps } = datastore
  const others = (await liveLeases({ place, ...deps })).filter(({ kind }) => kind === 'collect')
  if (others[0]) throw new Fault('conflict', `garbage is being collected already, by ${others[0].by}`)
  await using _lease = await datastore.lease('collect')
  const rivals = (await liveLeases({ place, ...deps })).filter(({ kind }) => kind === 'collect')
  if (rivals.length > 1) throw new Fault('conflict', 'somebody else began to collect garbage at the same moment')
  return await new Collector(open, options).run()
}

interface Found {
  readonly dead: IdList
  readonly live: LiveChunks
}

interface CondemnedList {
  readonly name: string
  /** Object that says since when it is there; the list itself where nothing says so yet. */
  readonly marker: string
  readonly time: number | undefined
}

interface TimedList extends CondemnedList {
  readonly time: number
}

class Collector {
  readonly #open: OpenDatastore
  readonly #options: CollectOptions

  constructor(open: OpenDatastore, options: CollectOptions) {
    this.#open = open
    this.#options = options
  }

  async run(): Promise<Collected> {
    const { onPhase, graceSeconds = 0 } = this.#options
    const { place, deps } = this.#open.datastore
    onPhase?.('mark')
    const orphans = await this.#orphanPacks()
    const lists = await this.#lists()
    const { dead, live } = await this.#mark()
    onPhase?.('condemn')
    const condemned = await this.#condemn(dead, lists)
    const now = seconds(deps.clock)
    const facts = { chunks: live.count, liveChunks: live.live, condemnedChunks: condemned }
    const nothing = { removedChunks: 0, removedPacks: 0, rewrittenPacks: 0, freedBytes: 0 }
    const all = await this.#timed(await this.#lists(), now)
    const writers = (await liveLeases({ place, ...deps })).filter(({ kind }) => kind === 'write')
    const oldestWriter = Math.min(...writers.map(({ began }) => began))
    const ripe = all.filter(({ time }) => time + graceSeconds <= now && time < oldestWriter)
    if (ripe.length === 0 && orphans.length === 0) {
      return { ...facts, ...nothing, ...(all.length > 0 && { waitsFor: waitsFor(writers, graceSeconds) }) }
    }
    const doomed = await this.#doomed(ripe, dead)
    const removed = await this.#remove(doomed, orphans)
    // Last: as long as it is there, writers take nothing of it for there.
    for (const { name, marker } of ripe) {
      await place.remove(name)
      await place.remove(marker)
    }
    await this.#open.index.reload()
    return { ...facts, ...removed, removedChunks: doomed.count }
  }

  /** Packs no segment names, left by writers that died. Only known to be so while nobody writes. */
  async #orphanPacks(): Promise<string[]> {
    const { place, deps } = this.#open.datastore
    const isQuiet = async () => (await liveLeases({ place, ...deps })).every(({ kind }) => kind !== 'write')
    if (!(await isQuiet())) return []
    const packs: string[] = []
    for await (const { name } of place.list('packs/')) packs.push(name.slice(-64))
    // Who began and ended in between told the index of its packs; who is still there may not have.
    if (!(await isQuiet())) return []
    await this.#open.index.reload()
    const named = new Set(this.#open.index.segments.flatMap((segment) => segment.packs))
    await this.#open.datastore.clearStaging()
    return packs.filter((pack) => !named.has(pack))
  }

  async #lists(): Promise<CondemnedList[]> {
    const names = new Set<string>()
    for await (const { name } of this.#open.datastore.place.list(condemnedFolder)) names.add(name)
    const markers = new Map([...names].map((name) => [name.replace(/\.at-\d+$/, ''), name]))
    return [...names].flatMap((name) => {
      if (name.includes('.at-')) return []
      const marker = markers.get(name) ?? name
      const time = /\.at-(\d+)$/.exec(marker)?.[1]
      return [{ name, marker, time: time === undefined ? undefined : Number(time) }]
    })
  }

  /** Says since when everybody who begins sees a list: from after it was put, not from before. */
  async #timed(lists: readonly CondemnedList[], now: number): Promise<TimedList[]> {
    const timed: TimedList[] = []
    for (const { name, marker, time } of lists) {
      const made = time === undefined ? `${name}.at-${now}` : marker
      if (time === undefined) await this.#open.datastore.place.put(made, Buffer.alloc(0))
      timed.push({ name, marker: made, time: time ?? now })
    }
    return timed
  }

  async #mark(): Promise<Found> {
    const { datastore, index } = this.#open
    // Manifests first: what comes later holds a lease, and relies on nothing that is condemned before it began.
    await index.reload()
    const live = await LiveChunks.of(index.segments)
    for (const point of await datastore.points()) {
      goOn(this.#options.signal)
      try {
        await live.mark(this.#open, await this.#open.body(point))
      } catch (fault) {
        // Removed while we looked.
        if (!isFault(fault, 'missing')) throw fault
      }
    }
    return { dead: live.dead(), live }
  }

  /** @returns how many more */
  async #condemn(dead: IdList, lists: readonly CondemnedList[]): Promise<number> {
    const { place, deps } = this.#open.datastore
    const known: IdList[] = []
    for (const { name } of lists) {
      const list = await readCondemned(place, name)
      if (list) known.push(list)
    }
    const fresh = filtered(dead, (id) => !known.some((list) => list.has(id)))
    if (fresh.count > 0) await place.put(`${condemnedFolder}${deps.random.uuid()}`, printCondemned(fresh))
    return fresh.count
  }

  /** What was condemned long enough ago and is still not needed. */
  async #doomed(ripe: readonly { name: string }[], dead: IdList): Promise<IdList> {
    const lists: IdList[] = []
    for (const { name } of ripe) {
      const list = await readCondemned(this.#open.datastore.place, name)
      if (list) lists.push(list)
    }
    return filtered(dead, (id) => lists.some((list) => list.has(id)))
  }

  async #remove(
    doomed: IdList,
    orphans: readonly string[],
  ): Promise<{ removedPacks: number; rewrittenPacks: number; freedBytes: number }> {
    const { onPhase } = this.#options
    const { place } = this.#open.datastore
    const { index } = this.#open
    const living = new Map<string, number>()
    const hit = new Set<string>()
    for (const segment of index.segments) {
      for await (const { id, pack, length } of segment.entries()) {
        if (doomed.has(id)) hit.add(pack)
        else living.set(pack, (living.get(pack) ?? 0) + length)
      }
    }
    let [freedBytes, removedPacks] = [0, 0]
    const removePack = async (pack: string) => {
      const size = await place.sizeOf(packName(pack)).catch(() => 0)
      if (!(await place.remove(packName(pack)))) return
      await place.remove(`suspects/${pack}`)
      freedBytes += size
      removedPacks += 1
    }
    onPhase?.('remove')
    // Where nothing lives nothing has to be written first: that helps when the place is full.
    for (const pack of [...orphans, ...[...hit].filter((one) => !living.has(one))]) await removePack(pack)
    onPhase?.('rewrite')
    const thinPacks: string[] = []
    for (const pack of hit) {
      const alive = living.get(pack)
      if (alive === undefined) continue
      const size = await place.sizeOf(packName(pack)).catch(() => 0)
      if (size > 0 && alive / size < thin) thinPacks.push(pack)
    }
    const before = await this.#sizeOfPacks(thinPacks)
    const moved = await this.#rewrite(new Set(thinPacks), doomed)
    const needs = { place, keyring: this.#open.keyring, random: this.#open.datastore.deps.random }
    const isGone = new Set(thinPacks)
    await index.reload()
    const old = index.segments.filter(({ name }) => name !== moved.segment)
    if (doomed.count > 0 || thinPacks.length > 0) {
      await replaceSegments(needs, old, ({ id, pack }) => !doomed.has(id) && !isGone.has(pack))
    }
    onPhase?.('remove')
    const counted = removedPacks
    for (const pack of thinPacks) await removePack(pack)
    return {
      removedPacks: counted,
      rewrittenPacks: thinPacks.length,
      freedBytes: freedBytes - Math.min(before, moved.bytes),
    }
  }

  async #sizeOfPacks(packs: readonly string[]): Promise<number> {
    let sum = 0
    for (const pack of packs) sum += await this.#open.datastore.place.sizeOf(packName(pack)).catch(() => 0)
    return sum
  }

  /** Writes what lives in the packs into new ones. */
  async #rewrite(packs: ReadonlySet<string>, doomed: IdList): Promise<{ segment: string | undefined; bytes: number }> {
    if (packs.size === 0) return { segment: undefined, bytes: 0 }
    const { index, keyring, chunks } = this.#open
    const { place, deps } = this.#open.datastore
    const before = new Set(index.segments.map(({ name }) => name))
    const writer = new ChunkWriter({ place, keyring, index, random: deps.random, level: 1 })
    for (const pack of packs) {
      goOn(this.#options.signal)
      for (const { id, stored, plainBytes, flags } of await chunks.storedIn(pack, (id) => !doomed.has(id))) {
        await writer.store(id, stored, plainBytes, flags)
      }
    }
    await writer.flush()
    return { segment: index.segments.find(({ name }) => !before.has(name))?.name, bytes: writer.storedBytes }
  }
}

function waitsFor(writers: readonly { readonly by: string }[], graceSeconds: number): string {
  const [writer] = writers
  return writer ? `a backup that is being made by ${writer.by}` : `${graceSeconds} seconds to pass`
}

function filtered(list: IdList, keeps: (id: Buffer) => boolean): IdList {
  const kept: Buffer[] = []
  for (let at = 0; at < list.bytes.length; at += shortIdBytes) {
    const id = list.bytes.subarray(at, at + shortIdBytes)
    if (keeps(id)) kept.push(id)
  }
  return new IdList(Buffer.concat(kept))
}
