/**
 * The ways to datastores that are elsewhere, for a node.
 *
 * Somewhere else can be away. Who asks for a list waits seconds for that and not minutes, and who asks again is told at once
 * what was found a moment ago; a backup that is being made is more patient, and a guest that runs from its backup most of all.
 */
import { join } from 'node:path'
import { labelOf, type RemoteDatastore } from '#base/datastore-at.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { DatastoreDeps } from '#datastore/deps.ts'
import type { Place, Room } from '#datastore/places/place.ts'
import { trusted } from '#host/web/trusted.ts'

export interface PlacesNeeds extends DatastoreDeps {
  readonly settings: { readonly cacheDir: string; readonly caFile?: string }
  /** Who waits when nobody answers: somebody at a screen, a task, or a running guest. */
  readonly waiting: 'somebody' | 'task' | 'guest'
}

const patience = {
  somebody: { attempts: 2, connectMs: 3_000, idleMs: 5_000 },
  task: { attempts: 6, connectMs: 10_000, idleMs: 60_000 },
  // Ten minutes, some: an error of a disk is what no guest gets over.
  guest: { attempts: 60, connectMs: 10_000, idleMs: 60_000 },
} as const
/** What was found is told again for so long. */
const knownMs = 30_000
/** Nobody is asked again who was not there a moment ago. */
const awayMs = 20_000
/** Rather what was known before, or nothing, than to wait longer. */
const lookMs = { known: 2_000, unknown: 4_000 } as const
const nowhere: Room = { totalBytes: 0, usedBytes: 0, availableBytes: 0 }

interface Found {
  readonly atMs: number
  readonly room?: Room
  readonly away?: Fault
}

export class Places {
  readonly #needs: PlacesNeeds
  readonly #found = new Map<string, Found>()
  readonly #looking = new Map<string, Promise<Found>>()

  constructor(needs: PlacesNeeds) {
    this.#needs = needs
  }

  /** The caller disposes of it. @throws Fault `unavailable` when it cannot be used, whatever the reason */
  async open(at: RemoteDatastore): Promise<Place> {
    const { away, atMs } = this.#found.get(keyOf(at)) ?? { atMs: 0 }
    if (away && this.#needs.waiting === 'somebody' && this.#nowMs() - atMs < awayMs) throw away
    try {
      return await this.#open(at)
    } catch (cause) {
      if (!isFault(cause)) throw cause
      const fault = unusable(at, cause)
      this.#keep(at, { away: fault })
      throw fault
    }
  }

  /** Looks now. @throws Fault `unavailable` */
  async requireUsable(at: RemoteDatastore): Promise<void> {
    const { away } = await this.#look(at)
    if (away) throw away
    if (at.kind !== 's3' || at.retainSeconds === undefined) return
    await using place = await this.open(at)
    if (place.canRetain !== true) {
      throw new Fault('invalid', `bucket '${at.bucket}' has no Object Lock, so nothing in it can be retained`, {
        remedy: 'Object Lock is chosen when a bucket is made. Without it leave out --retain-days.',
      })
    }
  }

  /** As it was found lately; zeros where nobody can tell. @throws Fault `unavailable` */
  async spaceAt(at: RemoteDatastore): Promise<Room> {
    const known = this.#found.get(keyOf(at))
    const isFresh = known && this.#nowMs() - known.atMs < (known.away ? awayMs : knownMs)
    const { away, room = nowhere } = isFresh ? known : await this.#lookOr(at, known)
    if (away) throw away
    return room
  }

  async #lookOr(at: RemoteDatastore, known: Found | undefined): Promise<Found> {
    const looking = this.#look(at)
    const { clock } = this.#needs
    const waited = new AbortController()
    const silent = { atMs: 0, away: new Fault('unavailable', `'${labelOf(at)}' does not answer`) }
    const old = clock.sleep(known ? lookMs.known : lookMs.unknown, waited.signal).then(() => known ?? silent)
    old.catch(() => {})
    try {
      return await Promise.race([looking, old])
    } finally {
      waited.abort()
    }
  }

  /** Never rejects for what is away. */
  #look(at: RemoteDatastore): Promise<Found> {
    const key = keyOf(at)
    const running = this.#looking.get(key)
    if (running) return running
    const looking = this.#lookNow(at).finally(() => this.#looking.delete(key))
    this.#looking.set(key, looking)
    return looking
  }

  async #lookNow(at: RemoteDatastore): Promise<Found> {
    try {
      await using place = await this.#open(at)
      return this.#keep(at, { room: (await place.room?.()) ?? nowhere })
    } catch (cause) {
      if (!isFault(cause)) throw cause
      return this.#keep(at, { away: unusable(at, cause) })
    }
  }

  #keep(at: RemoteDatastore, found: Omit<Found, 'atMs'>): Found {
    const kept = { atMs: this.#nowMs(), ...found }
    this.#found.set(keyOf(at), kept)
    return kept
  }

  async #open(at: RemoteDatastore): Promise<Place> {
    const { settings, waiting } = this.#needs
    const { cacheDir } = settings
    const homes = { stagingHome: join(cacheDir, 'staging'), keptHome: join(cacheDir, 'segments') }
    const how = { ...patience[waiting], ...homes }
    // The machine's own are what is trusted anyway.
    const ca = settings.caFile === undefined ? undefined : (await trusted(settings.caFile)).join('\n')
    if (at.kind === 'hakobune') {
      const { HttpsPlace } = await import('#datastore/places/https/place.ts')
      const { url, token, fingerprint } = at
      return HttpsPlace.open({ url, token, fingerprint, ca, ...how }, this.#needs)
    }
    const { S3Place } = await import('#datastore/places/s3/place.ts')
    const { bucket, prefix, endpoint, region } = at
    // Its library writes into what it is given.
    const credentials = at.credentials && { ...at.credentials }
    return S3Place.open({ bucket, prefix, endpoint, region, credentials, ca, ...how }, this.#needs)
  }

  #nowMs(): number {
    return this.#needs.clock.monotonic()
  }
}

function keyOf(at: RemoteDatastore): string {
  return JSON.stringify(at)
}

/** Whatever is wrong there, the storage cannot be used now; what is to be done is done with the storage. */
function unusable(at: RemoteDatastore, cause: Fault): Fault {
  // A mistake in what was asked for stays one.
  const kind = cause.kind === 'exhausted' || cause.kind === 'aborted' ? cause.kind : 'unavailable'
  const isOfCommand = cause.remedy === undefined || cause.remedy.includes('--')
  const remedy = isOfCommand ? `See that ${labelOf(at)} answers, and how the storage is reached: \`hako storage set\`.` : cause.remedy // prettier-ignore
  return new Fault(kind, cause.message, { cause, remedy })
}
