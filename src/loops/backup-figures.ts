/**
 * What metric servers are told of backups: how old and how large the last good one of each guest is, when a drill proved
 * one, how each datastore is, and what the last runs of the jobs found that look after it.
 *
 * Looked at every few minutes and beside the rounds, which take what is known: no round waits for a slow datastore. Ages
 * are from the moment they are asked for.
 */
import { seconds } from '#base/clock.ts'
import type { ListedBackup } from '#backup/service.ts'
import { type BackupCount, BackupCounts, type Counted } from '#cluster/backup-counts.ts'
import type { CollectedOutcome, DatastoreJobOutcome } from '#cluster/datastore-jobs.ts'
import { newStoredBytesOf } from '#datastore/points/manifest.ts'
import type { GuestKind } from '#guests/kind.ts'
import type { Values } from '#observe/sample.ts'
import type { Services } from '#services.ts'

const everySeconds = 300

export type FiguresDeps = Pick<
  Services,
  'clock' | 'log' | 'storage' | 'backup' | 'recovery' | 'datastoreJobs' | 'store'
>

interface GuestFigures {
  readonly points: number
  /** Seconds since 1970, as all times here. */
  readonly taken?: number
  readonly proven?: number
  /** Of which a sudden jump was reported, and when the last of them was. */
  readonly hints: number
  readonly hinted?: number
  readonly size?: number
  readonly stored?: number
  readonly duration?: number
}

interface DatastoreFigures {
  readonly bytes: number
  readonly points: number
  readonly damaged: number
  readonly hints: number
  readonly unverified: number
  readonly verified?: number
}

export class BackupFigures {
  readonly #deps: FiguresDeps
  /** By `vm/100`. */
  #guests = new Map<string, GuestFigures>()
  /** By storage. */
  #datastores = new Map<string, DatastoreFigures>()
  #outcomes: readonly DatastoreJobOutcome[] = []
  /** By storage. */
  #collections: ReadonlyMap<string, CollectedOutcome> = new Map()
  #counts: ReadonlyMap<string, BackupCount> = new Map()
  #looked = -Infinity
  #looking: Promise<void> | undefined

  constructor(deps: FiguresDeps) {
    this.#deps = deps
  }

  /** Looks in the background when what is known is old. */
  refresh(): void {
    if (this.#looking || seconds(this.#deps.clock) - this.#looked < everySeconds) return
    this.#looking = this.#look()
      .catch((error: unknown) => this.#deps.log.warn('looking how backups are for metric servers failed', { error }))
      .finally(() => {
        this.#looked = seconds(this.#deps.clock)
        this.#looking = undefined
      })
  }

  /** Until nobody looks. */
  async settled(): Promise<void> {
    await this.#looking
  }

  /** Nothing of a guest that was never backed up. */
  ofGuest(kind: GuestKind, vmid: number): Values | undefined {
    const found = this.#guests.get(`${kind === 'lxc' ? 'ct' : 'vm'}/${vmid}`)
    if (!found) return undefined
    const { taken, proven, hinted, ...others } = found
    const ages = { age: this.#since(taken), provenage: this.#since(proven), hintage: this.#since(hinted) }
    return { ...others, ...ages, ...this.#ofPruning(`${kind === 'lxc' ? 'ct' : 'vm'}/${vmid}`) }
  }

  ofDatastore(storage: string): Values | undefined {
    const found = this.#datastores.get(storage)
    if (!found) return undefined
    const { verified, ...others } = found
    const { retries, retried } = this.#counts.get(`storage/${storage}`) ?? {}
    const ofRetries = { retries: retries ?? 0, retryage: this.#since(retried) }
    const ofCare = { ...this.#ofPruning(`storage/${storage}`), ...ofRetries, ...this.#ofJobs(storage) }
    return { ...others, verifyage: this.#since(verified), ...ofCare }
  }

  #ofPruning(what: Counted): Values {
    const pruned = this.#counts.get(what)?.pruned
    return { prunerunage: this.#since(pruned?.ended), prunekept: pruned?.kept, pruneremoved: pruned?.removed }
  }

  /** Of several jobs of one kind: the one that ran last. */
  #ofJobs(storage: string): Values {
    const values: Record<string, number | undefined> = {}
    const outcomes = this.#outcomes.filter((one) => one.storage === storage)
    const inOrder = outcomes.toSorted((a, b) => a.ended - b.ended)
    for (const { type, ended, isGood, good, oldest, seconds: took, bytes, fetched } of inOrder) {
      values[`${type}runage`] = this.#since(ended)
      values[`${type}good`] = Number(isGood)
      values[`${type}goodage`] = this.#since(good)
      values[`${type}duration`] = took
      values[`${type}bytes`] = bytes
      if (fetched !== undefined) values.verifyfetched = fetched
      if (oldest !== undefined) values.oldestage = this.#since(oldest)
    }
    const collected = this.#collections.get(storage)
    if (!collected) return values
    const { ended, seconds: took, isGood = true, freedBytes, condemnedChunks } = collected
    const ofCollection = {
      collectgood: Number(isGood),
      collectrunage: this.#since(ended),
      collectduration: took,
      collectfreed: freedBytes,
    }
    return { ...values, ...ofCollection, collectcondemned: condemnedChunks }
  }

  #since(moment: number | undefined): number | undefined {
    return moment === undefined ? undefined : Math.max(0, seconds(this.#deps.clock) - Math.floor(moment))
  }

  async #look(): Promise<void> {
    const { storage, backup, recovery, datastoreJobs, store, log } = this.#deps
    const [guests, datastores] = [new Map<string, GuestFigures>(), new Map<string, DatastoreFigures>()]
    for (const { name, content } of await storage.list()) {
      if (!content.includes('backup')) continue
      try {
        const bytes = await backup.storedBytes(name)
        if (bytes === undefined) continue
        const backups = await backup.list({ storage: name })
        datastores.set(name, ofBackups(bytes, backups))
        for (const one of backups) {
          const guest = `${one.type}/${one.vmid}`
          guests.set(guest, withBackup(guests.get(guest), one))
        }
      } catch (error) {
        log.debug('a storage could not be asked how its backups are', { storage: name, error })
      }
    }
    for (const { guest, proven, ended } of await recovery.list()) {
      const known = guests.get(guest)
      const at = Date.parse(ended) / 1000
      if (known && proven && !(at <= (known.proven ?? 0))) guests.set(guest, { ...known, proven: at })
    }
    this.#outcomes = [...(await datastoreJobs.outcomes()).values()]
    this.#counts = await new BackupCounts(store).all()
    this.#collections = await datastoreJobs.collections()
    this.#guests = guests
    this.#datastores = datastores
  }
}

function ofBackups(bytes: number, backups: readonly ListedBackup[]): DatastoreFigures {
  const verified = backups.flatMap((one) => one.verified ?? [])
  return {
    bytes,
    points: backups.length,
    damaged: backups.filter(({ damage }) => damage !== undefined).length,
    hints: backups.filter(({ hint }) => hint !== undefined).length,
    unverified: backups.length - verified.length,
    ...(verified.length === 0 ? {} : { verified: Math.max(...verified) }),
  }
}

/** One that is damaged is none to count on. */
function withBackup(
  before: GuestFigures = { points: 0, hints: 0 },
  { damage, manifest, sizeBytes, hint, ctime }: ListedBackup,
): GuestFigures {
  if (damage !== undefined || !manifest) return before
  const hinted = hint === undefined ? {} : { hints: before.hints + 1, hinted: Math.max(before.hinted ?? 0, ctime) }
  const counted = { ...before, points: before.points + 1, ...hinted }
  const taken = Date.parse(manifest.pointInTime) / 1000
  if (before.taken !== undefined && before.taken > taken) return counted
  const duration = Math.max(0, manifest.finished - manifest.point.time)
  return { ...counted, taken, size: sizeBytes, stored: newStoredBytesOf(manifest), duration }
}
