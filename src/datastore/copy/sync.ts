/**
 * Copies one datastore into another, without any key: what is immutable is copied where it is missing, proven by its
 * name, and manifests come last, so that a copy that was cut off holds whole backups and goes on where it was.
 *
 * A writer of backups stores anew what is condemned, or lies in a pack nobody has named. A copy cannot: a pack has the name
 * it has. So packs come beside whoever collects garbage here, but parts of the index and manifests only while nobody does,
 * when every pack they need was seen to be there. Who collects later sees the manifests.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '#base/bytes.ts'
import { Fault, isFault } from '#base/fault.ts'
import { keptRate } from '#base/kept-rate.ts'
import type { Mark } from '#base/pace.ts'
import { suspectsFolder } from '../index/chunk-index.ts'
import type { Datastore, OpenDatastore } from '../datastore.ts'
import type { DatastoreDeps } from '../deps.ts'
import { goOn } from '../go-on.ts'
import type { Lease } from '../places/lease.ts'
import type { Keyring } from '../keys/keyring.ts'
import { manifestName, parseManifest } from '../points/manifest.ts'
import { listMarks, marksName, printMarks } from '../points/marks.ts'
import { packName } from '../packs/pack.ts'
import type { Place } from '../places/place.ts'
import { bringMarks, marksOfNew } from './copied-marks.ts'
import { type FoundThere, namePacks, type Needed, neededChunks, packsFor } from './needed-packs.ts'
import { copyProven } from './proven-copy.ts'
import { targetFor } from './target.ts'
import { printPoint, type RestorePoint } from '../point.ts'
import { Segment } from '../index/segment.ts'

const manifestFileMaximumBytes = 96 * MiB
/** While the source collects garbage things move; after so many looks it is asked to come again. */
const passes = 5
const damagesTold = 63
/** For who collects garbage in the copy, or merges its index, to be done: as long as they live their lease is renewed. */
const patienceMs = 60 * 60_000
const [firstPauseMs, longestPauseMs] = [100, 10_000]

export interface SyncOptions {
  /** Only backups of this namespace and those below it. */
  readonly namespace?: string | undefined
  /** The source with its keys: of packs only those are copied that the backups of the namespace need. Without, all are. */
  readonly open?: OpenDatastore | undefined
  /** Backups that are gone at the source go here, too, unless they are protected. */
  readonly removesVanished?: boolean | undefined
  readonly rateBytesPerSecond?: number | undefined
  readonly signal?: AbortSignal | undefined
  /** In phases: `packs` are copied, the `index`, and what makes them `backups`. */
  readonly onProgress?: ((mark: Mark) => void) | undefined
}

export interface Synced {
  readonly backups: number
  readonly removed: number
  readonly packs: number
  readonly bytes: number
}

/**
 * @param to where a copy is, or is to be made
 * @throws Fault `conflict` when another datastore is there; `damaged` naming what is not as it was at the source: everything else
 *   is there then
 */
export async function syncDatastore(
  from: Datastore,
  to: Place,
  deps: DatastoreDeps,
  options: SyncOptions = {},
): Promise<Synced> {
  const target = await targetFor(from, to, deps)
  // Nothing that is copied is collected before its manifest is here.
  await using lease = await target.lease('write')
  return await new Copy(from, target, lease, options).run()
}

/** Of the source, with its keys. */
interface Part {
  readonly open: OpenDatastore
  readonly needed: Needed
}

class Copy {
  readonly #from: Datastore
  readonly #to: Datastore
  readonly #lease: Lease
  readonly #options: SyncOptions
  readonly #keepRate: (allBytes: number) => Promise<void>
  #packs = 0
  #bytes = 0
  /** What is wrong at the source. */
  readonly #damages = new Set<string>()
  /** Packs nobody here is to rely on. */
  readonly #lost = new Set<string>()
  /** Backups of this run. */
  readonly #came = new Set<string>()
  /** Parts of the copy's index that are what was written. */
  readonly #proven = new Map<string, Segment>()

  constructor(from: Datastore, to: Datastore, lease: Lease, options: SyncOptions) {
    this.#from = from
    this.#to = to
    this.#lease = lease
    this.#options = options
    const { rateBytesPerSecond, signal } = options
    this.#keepRate = keptRate(rateBytesPerSecond, { clock: to.deps.clock, signal })
  }

  async run(): Promise<Synced> {
    for (let pass = 1; ; pass += 1) {
      const points = await this.#pass().catch((fault: unknown) => {
        // A merge took away a part of the index that was being read.
        if (!isFault(fault, 'missing') || pass === passes) throw fault
        return undefined
      })
      if (points) {
        await this.#keepUp(points)
        const removed = await this.#removeVanished()
        this.#tellDamages()
        return { backups: this.#came.size, removed, packs: this.#packs, bytes: this.#bytes }
      }
      if (pass === passes) throw collecting(this.#from)
    }
  }

  /** @returns what is here now; nothing when something it needs was moved, or removed, meanwhile */
  async #pass(): Promise<readonly RestorePoint[] | undefined> {
    const wanted = await this.#wanted()
    const part = await this.#part(wanted)
    const counted = await this.#copyPacks(part && (await this.#packsFor(part)))
    await using alone = await this.#alone()
    const isAllThere = part ? await this.#nameThose(part, alone) : await this.#copySegments(counted, alone)
    if (!isAllThere) return undefined
    const points = part?.needed.points ?? wanted
    await this.#copyManifests(points, alone)
    return points
  }

  /** While it holds nobody removes what is here. @throws Fault `unavailable` */
  async #alone(): Promise<Lease> {
    const { clock, random, log } = this.#to.deps
    const until = clock.monotonic() + patienceMs
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
      const lease = await this.#to.tryTidy()
      if (lease) return lease
      if (clock.monotonic() > until) throw collecting(this.#to)
      if (pauseMs === firstPauseMs) log.tell?.(`waiting until nobody collects garbage in '${this.#to.place.label}'`)
      // Two who both stepped back must not come back at the same moment.
      await clock.sleep(pauseMs + (random.bytes(1)[0] ?? 0), this.#options.signal)
    }
  }

  async #wanted(): Promise<RestorePoint[]> {
    return (await this.#from.points()).filter((point) => this.#isWanted(point))
  }

  #isWanted({ namespace }: RestorePoint): boolean {
    const { namespace: wanted } = this.#options
    return wanted === undefined || namespace === wanted || namespace.startsWith(`${wanted}.`)
  }

  /** What those backups need; nothing when all of it is copied. */
  async #part(points: readonly RestorePoint[]): Promise<Part | undefined> {
    const { open, namespace } = this.#options
    if (namespace === undefined || open?.keyring.canRead !== true) return undefined
    this.#options.onProgress?.({ phase: 'look' })
    const needed = await neededChunks(open, points)
    for (const damage of needed.damages) this.#damages.add(damage)
    return { open, needed }
  }

  /** Still to come, or to be named. */
  async #packsFor({ open, needed }: Part): Promise<Set<string>> {
    return packsFor(open, needed, await this.#found(open.keyring))
  }

  async #found(keyring: Keyring): Promise<FoundThere> {
    const { place } = this.#to
    const [there, suspects] = [await this.#packsBelow('packs/'), await this.#packsBelow(suspectsFolder)]
    const segments: Segment[] = []
    for await (const { name } of place.list('segments/')) {
      try {
        const segment = this.#proven.get(name) ?? (await Segment.open(place, name))
        if (!this.#proven.has(name)) await segment.check(keyring)
        this.#proven.set(name, segment)
        segments.push(segment)
      } catch (fault) {
        if (!isFault(fault, 'damaged') && !isFault(fault, 'missing')) throw fault
      }
    }
    return { segments, isWhole: (pack) => there.has(pack) && !suspects.has(pack) }
  }

  /** Of the copy: packs that have an object in this folder. */
  async #packsBelow(folder: string): Promise<Set<string>> {
    const packs = new Set<string>()
    for await (const { name } of this.#to.place.list(folder)) packs.add(name.slice(-64))
    return packs
  }

  /** @returns whether all that is needed came */
  async #nameThose(part: Part, lease: Lease): Promise<boolean> {
    const packs = await this.#packsFor(part)
    const there = await this.#packsBelow('packs/')
    if (![...packs].every((pack) => there.has(pack) || this.#lost.has(pack))) return false
    const { place, deps } = this.#to
    const { open, needed } = part
    if (packs.size > 0)
      await namePacks({ place, random: deps.random, lease, keyring: open.keyring }, open, needed, packs)
    return true
  }

  /** @param wanted names; all when absent. @returns those that are here */
  async #copyPacks(wanted?: ReadonlySet<string>): Promise<ReadonlySet<string>> {
    const missing: { readonly name: string; readonly sizeBytes: number }[] = []
    const counted = new Set<string>()
    const [there, suspects] = [await this.#packsBelow('packs/'), await this.#packsBelow(suspectsFolder)]
    for await (const pack of this.#from.place.list('packs/')) {
      const id = pack.name.slice(-64)
      if (wanted?.has(id) === false) continue
      if (there.has(id)) counted.add(id)
      else missing.push(pack)
    }
    const all = missing.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
    let done = 0
    for (const { name, sizeBytes } of missing) {
      goOn(this.#options.signal)
      const id = name.slice(-64)
      if (this.#lost.has(id)) continue
      const isWhole = await this.#isWhole(async () => {
        if (await this.#copyPack(id)) counted.add(id)
      })
      if (!isWhole) {
        this.#lost.add(id)
        await this.#to.place.put(`${suspectsFolder}${id}`, Buffer.alloc(0))
      } else if (suspects.has(id)) await this.#to.place.remove(`${suspectsFolder}${id}`)
      done += sizeBytes
      this.#options.onProgress?.({ phase: 'packs', fraction: done / Math.max(1, all), bytes: done })
    }
    return counted
  }

  #tellDamages(): void {
    const [first, ...others] = this.#damages
    if (first === undefined) return
    const more = `; ${others.length} more in '${this.#from.place.label}': ${others.slice(0, damagesTold).join('; ')}`
    throw new Fault('damaged', others.length === 0 ? first : `${first}${more}`, {
      remedy: 'All that is whole was copied. Mend the source, then synchronize again.',
    })
  }

  /** False when it is not there any more. */
  async #copyPack(id: string): Promise<boolean> {
    const isThere = await this.#copy(packName(id), this.#lease)
    if (isThere) this.#packs += 1
    return isThere
  }

  /** False where it is damaged, which is told in the end: what else there is shall not wait for that. */
  async #isWhole(act: () => Promise<void>): Promise<boolean> {
    try {
      await act()
      return true
    } catch (fault) {
      if (!isFault(fault, 'damaged')) throw fault
      this.#damages.add(fault.message)
      return false
    }
  }

  /** True when every segment of the source is here, every pack one of them names, and those that were counted before. */
  async #copySegments(counted: ReadonlySet<string>, lease: Lease): Promise<boolean> {
    const there = new Set<string>()
    for await (const { name } of this.#to.place.list('segments/')) there.add(name)
    this.#options.onProgress?.({ phase: 'index' })
    const packs = await this.#packsBelow('packs/')
    if (!counted.isSubsetOf(packs)) return false
    for await (const { name } of this.#from.place.list('segments/')) {
      if (there.has(name)) continue
      let isComplete = true
      await this.#isWhole(async () => {
        isComplete = await this.#copySegment(name, packs, lease)
      })
      if (!isComplete) return false
    }
    return true
  }

  /** False when a pack it names is not here, or it is not there any more. */
  async #copySegment(name: string, packs: ReadonlySet<string>, lease: Lease): Promise<boolean> {
    try {
      const segment = await Segment.open(this.#from.place, name)
      // What is named but not there would be taken for there by whoever writes into the copy.
      if (!segment.packs.every((pack) => packs.has(pack) || this.#lost.has(pack))) return false
    } catch (fault) {
      if (isFault(fault, 'missing')) return false
      throw fault
    }
    return this.#copy(name, lease)
  }

  /** False when it is not there any more. @param lease under which what came before is here */
  async #copy(name: string, lease: Lease): Promise<boolean> {
    const path = join(this.#to.place.stagingDir, `copy-${this.#to.deps.random.uuid()}`)
    const isThere = await copyProven(this.#from.place, name, path, (count) => {
      this.#bytes += count
      goOn(this.#options.signal)
      return this.#keepRate(this.#bytes)
    })
    if (!isThere) return false
    try {
      await lease.requireHeld()
      await this.#to.place.putFile(name, path)
    } finally {
      await rm(path, { force: true })
    }
    return true
  }

  async #copyManifests(points: readonly RestorePoint[], lease: Lease): Promise<void> {
    const there = new Set((await this.#to.points()).map(printPoint))
    let looked = 0
    for (const point of points) {
      looked += 1
      this.#options.onProgress?.({ phase: 'backups', fraction: looked / points.length })
      if (there.has(printPoint(point))) continue
      await this.#isWhole(async () => {
        if (await this.#copyManifest(point, lease)) this.#came.add(printPoint(point))
      })
    }
  }

  /** Of backups that were here before: whether they are whole at the source, and what is said of them there. */
  async #keepUp(points: readonly RestorePoint[]): Promise<void> {
    const marked = await listMarks(this.#from.place)
    for (const point of points) {
      if (this.#came.has(printPoint(point))) continue
      goOn(this.#options.signal)
      await this.#isWhole(async () => void (await this.#signed(point)))
      // Where we only add, they are somebody else's.
      if (!marked.has(marksName(point)) || this.#to.place.addsOnly === true) continue
      await bringMarks(this.#from, this.#to, point)
    }
  }

  async #removeVanished(): Promise<number> {
    if (this.#options.removesVanished !== true) return 0
    let removed = 0
    const left = new Set((await this.#from.points()).map(printPoint))
    for (const point of await this.#to.points()) {
      if (!this.#isWanted(point) || left.has(printPoint(point)) || (await this.#to.marks(point)).protected) continue
      // It goes with a later sync.
      if ((await this.#to.lockedUntil(point)) !== undefined) continue
      await this.#to.remove(point)
      removed += 1
    }
    return removed
  }

  /** False when it is here already, or not there any more. */
  async #copyManifest(point: RestorePoint, lease: Lease): Promise<boolean> {
    const text = await this.#signed(point)
    if (!text) return false
    const marks = await marksOfNew(this.#from, point)
    await lease.requireHeld()
    const isMarked = Object.values(marks).some((value) => value !== undefined)
    if (isMarked) await this.#to.place.put(marksName(point), Buffer.from(printMarks(marks)))
    return this.#to.place.put(manifestName(point), text)
  }

  /** Signed and whole, or it is not worth having. Nothing when it is not there any more. */
  async #signed(point: RestorePoint): Promise<Buffer | undefined> {
    const text = await this.#from.place.get(manifestName(point), manifestFileMaximumBytes)
    if (!text || parseManifest(text.toString('utf8'), point).isSigned(this.#to.facts.signer)) return text
    throw new Fault('denied', `the manifest of backup ${printPoint(point)} is not signed by this datastore`)
  }
}

function collecting({ place }: Datastore): Fault {
  return new Fault('unavailable', `garbage is being collected in '${place.label}'`, {
    remedy: 'Try again when that is done; what was copied stays.',
  })
}
