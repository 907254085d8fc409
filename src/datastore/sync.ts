/**
 * Copies one datastore into another, without any key: what is immutable is copied where it is missing, proven by its
 * name, and manifests come last, so that a copy that was cut off holds whole backups and goes on where it was.
 */
import { join } from 'node:path'
import { MiB } from '#base/bytes.ts'
import { Fault, isFault } from '#base/fault.ts'
import { type Datastore, type DatastoreDeps, openDatastore } from './datastore.ts'
import { goOn } from './go-on.ts'
import { keyFileName, printKeyFile } from './key-file.ts'
import { manifestName } from './manifest.ts'
import { marksName } from './marks.ts'
import { packName } from './pack.ts'
import type { Place } from './place.ts'
import { copyProven } from './proven-copy.ts'
import { printPoint, type RestorePoint } from './point.ts'
import { Segment } from './segment.ts'

const smallMaximumBytes = 96 * MiB
/** While the source collects garbage things move; after so many looks it is asked to come again. */
const passes = 5

export interface SyncOptions {
  /** Only backups of this namespace and those below it. */
  readonly namespace?: string | undefined
  /** Backups that are gone at the source go here, too, unless they are protected. */
  readonly removesVanished?: boolean | undefined
  readonly rateBytesPerSecond?: number | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((done: number, all: number) => void) | undefined
}

export interface Synced {
  readonly backups: number
  readonly removed: number
  readonly packs: number
  readonly bytes: number
}

/**
 * @param to where a copy is, or is to be made
 * @throws Fault `conflict` when another datastore is there; `damaged` when a file of the source is not what its name says
 */
export async function syncDatastore(
  from: Datastore,
  to: Place,
  deps: DatastoreDeps,
  options: SyncOptions = {},
): Promise<Synced> {
  const target = await targetFor(from, to, deps)
  // Nothing that is copied is collected before its manifest is here.
  await using _writing = await target.lease('write')
  return await new Copy(from, target, options).run()
}

async function targetFor(from: Datastore, to: Place, deps: DatastoreDeps): Promise<Datastore> {
  const existing = await openDatastore(to, deps).catch((fault: unknown) => {
    if (isFault(fault, 'missing')) return undefined
    throw fault
  })
  if (existing && existing.facts.id !== from.facts.id) {
    throw new Fault('conflict', `the datastore in '${to.label}' is no copy of that in '${from.place.label}'`, {
      remedy: 'Name an empty directory, or the copy that was made of it.',
    })
  }
  // The keys first: a copy nobody can open is none.
  const keys = await from.keyFile()
  await to.put(keyFileName(keys.generation), Buffer.from(printKeyFile(keys)))
  if (existing) return existing
  const format = await from.place.get('format', smallMaximumBytes)
  if (!format) throw new Fault('missing', `there is no datastore in '${from.place.label}' any more`)
  await to.put('format', format)
  return openDatastore(to, deps)
}

class Copy {
  readonly #from: Datastore
  readonly #to: Datastore
  readonly #options: SyncOptions
  readonly #startedMs: number
  #packs = 0
  #bytes = 0

  constructor(from: Datastore, to: Datastore, options: SyncOptions) {
    this.#from = from
    this.#to = to
    this.#options = options
    this.#startedMs = to.deps.clock.monotonic()
  }

  async run(): Promise<Synced> {
    for (let pass = 1; ; pass += 1) {
      const points = await this.#wanted()
      await this.#copyPacks()
      if (await this.#copySegments()) {
        const counts = await this.#copyManifests(points)
        return { ...counts, packs: this.#packs, bytes: this.#bytes }
      }
      if (pass === passes) {
        throw new Fault('unavailable', `garbage is being collected in '${this.#from.place.label}'`, {
          remedy: 'Try again when that is done; what was copied stays.',
        })
      }
    }
  }

  async #wanted(): Promise<RestorePoint[]> {
    return (await this.#from.points()).filter((point) => this.#isWanted(point))
  }

  #isWanted({ namespace }: RestorePoint): boolean {
    const { namespace: wanted } = this.#options
    return wanted === undefined || namespace === wanted || namespace.startsWith(`${wanted}.`)
  }

  async #copyPacks(): Promise<void> {
    const missing: { readonly name: string; readonly sizeBytes: number }[] = []
    const there = new Set<string>()
    for await (const { name } of this.#to.place.list('packs/')) there.add(name)
    for await (const pack of this.#from.place.list('packs/')) if (!there.has(pack.name)) missing.push(pack)
    const all = missing.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
    let done = 0
    for (const { name, sizeBytes } of missing) {
      goOn(this.#options.signal)
      if (await this.#copy(packName(name.slice(-64)))) this.#packs += 1
      done += sizeBytes
      this.#options.onProgress?.(done, all)
    }
  }

  /** True when every segment of the source is here, and every pack one of them names. */
  async #copySegments(): Promise<boolean> {
    const there = new Set<string>()
    for await (const { name } of this.#to.place.list('segments/')) there.add(name)
    const packs = new Set<string>()
    for await (const { name } of this.#to.place.list('packs/')) packs.add(name.slice(-64))
    for await (const { name } of this.#from.place.list('segments/')) {
      if (there.has(name)) continue
      try {
        const segment = await Segment.open(this.#from.place, name)
        // What is named but not there would be taken for there by whoever writes into the copy.
        if (!segment.packs.every((pack) => packs.has(pack))) return false
      } catch (fault) {
        if (isFault(fault, 'missing')) return false
        throw fault
      }
      if (!(await this.#copy(name))) return false
    }
    return true
  }

  /** False when it is not there any more. */
  async #copy(name: string): Promise<boolean> {
    const path = join(this.#to.place.stagingDir, `copy-${this.#to.deps.random.uuid()}`)
    const isThere = await copyProven(this.#from.place, name, path, (count) => {
      this.#bytes += count
      return this.#slowDown()
    })
    if (!isThere) return false
    await this.#to.place.putFile(name, path)
    return true
  }

  async #slowDown(): Promise<void> {
    const { rateBytesPerSecond, signal } = this.#options
    goOn(signal)
    if (!rateBytesPerSecond) return
    const { clock } = this.#to.deps
    const aheadMs = (this.#bytes / rateBytesPerSecond) * 1000 - (clock.monotonic() - this.#startedMs)
    if (aheadMs > 0) await clock.sleep(aheadMs, signal)
  }

  async #copyManifests(points: readonly RestorePoint[]): Promise<{ backups: number; removed: number }> {
    let [backups, removed] = [0, 0]
    for (const point of points) {
      const text = await this.#from.place.get(manifestName(point), smallMaximumBytes)
      if (!text) continue
      // Signed and whole, or it is not worth having.
      const manifest = await this.#from.manifest(point)
      if (!manifest.isSigned(this.#to.facts.signer)) {
        throw new Fault('denied', `the manifest of backup ${printPoint(point)} is not signed by this datastore`)
      }
      const marks = await this.#from.place.get(marksName(point), smallMaximumBytes)
      if (marks) await this.#to.place.put(marksName(point), marks)
      if (await this.#to.place.put(manifestName(point), text)) backups += 1
    }
    if (this.#options.removesVanished !== true) return { backups, removed }
    const left = new Set((await this.#from.points()).map(printPoint))
    for (const point of await this.#to.points()) {
      if (!this.#isWanted(point) || left.has(printPoint(point)) || (await this.#to.marks(point)).protected) continue
      // It goes with a later sync.
      if ((await this.#to.lockedUntil(point)) !== undefined) continue
      await this.#to.remove(point)
      removed += 1
    }
    return { backups, removed }
  }
}
