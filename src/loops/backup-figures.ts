/**
 * What metric servers are told of backups: how old and how large the last good one of each guest is and how it was made, how
 * many failed, when a drill proved one, what became of the last restore, how each datastore is, and what the last runs of the
 * jobs found that look after it.
 *
 * Looked at every few minutes and beside the rounds, which take what is known: no round waits for a slow datastore. Ages
 * are from the moment they are asked for.
 */
import { seconds } from '#base/clock.ts'
import type { ListedBackup } from '#backup/service.ts'
import { type BackupCount, BackupCounts, type Counted } from '#cluster/backup-counts.ts'
import type { CollectedOutcome, DatastoreJobOutcome } from '#cluster/datastore-jobs.ts'
import type { GuestKind } from '#guests/kind.ts'
import type { Values } from '#observe/sample.ts'
import type { NodeServices } from '#services.ts'
import { statusTypeOf, type TaskItem } from '#tasks/task.ts'
import { hasWrongRecord, type MadeHow, madeHow } from './figures-of-a-backup.ts'

const everySeconds = 300

export type FiguresDeps = Pick<
  NodeServices,
  'clock' | 'log' | 'storage' | 'backup' | 'recovery' | 'datastoreJobs' | 'store' | 'tasks'
>

interface GuestFigures {
  readonly points: number
  /** Seconds since 1970, as all times here. */
  readonly taken?: number
  readonly proven?: number
  /** Of which a sudden jump was reported, and when the last of them was. */
  readonly hints: number
  readonly hinted?: number
  /** Whose record of changes was caught lying, and when the last of them was. */
  readonly alarms: number
  readonly alarmed?: number
  readonly size?: number
  readonly made?: MadeHow
}

interface DatastoreFigures {
  readonly bytes: number
  readonly points: number
  readonly damaged: number
  readonly hints: number
  readonly alarms: number
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
  /** By guest: the last that ended. */
  #restores: ReadonlyMap<string, TaskItem> = new Map()
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

  /** Nothing of a guest that was never backed up, nor was to be, nor restored. */
  ofGuest(kind: GuestKind, vmid: number): Values | undefined {
    const guest = `${kind === 'lxc' ? 'ct' : 'vm'}/${vmid}` as const
    const isKnown = [this.#guests, this.#counts, this.#restores].some((known) => known.has(guest))
    if (!isKnown) return undefined
    const { taken, proven, hinted, alarmed, made, ...others } = this.#guests.get(guest) ?? noFigures
    const ofBackups = { age: this.#since(taken), provenage: this.#since(proven) }
    const ofNotices = { hintage: this.#since(hinted), alarmage: this.#since(alarmed) }
    const counted = { ...this.#ofPruning(guest), ...this.#ofFailures(guest) }
    return { ...others, ...made, ...ofBackups, ...ofNotices, ...counted, ...this.#ofRestore(guest) }
  }

  ofDatastore(storage: string): Values | undefined {
    const found = this.#datastores.get(storage)
    if (!found) return undefined
    const { verified, ...others } = found
    const { retries, retried } = this.#counts.get(`storage/${storage}`) ?? {}
    const ofRetries = { retries: retries ?? 0, retryage: this.#since(retried) }
    const counted = { ...this.#ofPruning(`storage/${storage}`), ...this.#ofFailures(`storage/${storage}`) }
    return { ...others, verifyage: this.#since(verified), ...counted, ...ofRetries, ...this.#ofJobs(storage) }
  }

  #ofFailures(what: Counted): Values {
    const { failures = 0, failed } = this.#counts.get(what) ?? {}
    return { failures, failureage: this.#since(failed) }
  }

  #ofRestore(guest: string): Values {
    const restore = this.#restores.get(guest)
    if (restore?.endtime === undefined) return {}
    const { status, starttime, endtime } = restore
    const restoregood = Number(['ok', 'warning'].includes(statusTypeOf(status)))
    return { restoregood, restoreage: this.#since(endtime), restoreduration: Math.max(0, endtime - starttime) }
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

  /** Of the tasks that are kept. */
  async #lastRestores(): Promise<ReadonlyMap<string, TaskItem>> {
    const found = new Map<string, TaskItem>()
    for (const [typefilter, kind] of restores) {
      const { tasks } = await this.#deps.tasks.list({ typefilter, limit: Infinity })
      for (const task of tasks) {
        const known = found.get(`${kind}/${task.id}`)
        if ((known?.endtime ?? -1) < (task.endtime ?? -1)) found.set(`${kind}/${task.id}`, task)
      }
    }
    return found
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
    this.#restores = await this.#lastRestores()
    this.#guests = guests
    this.#datastores = datastores
  }
}

const noFigures: GuestFigures = { points: 0, hints: 0, alarms: 0 }
const restores = [
  ['qmrestore', 'vm'],
  ['vzrestore', 'ct'],
] as const

function ofBackups(bytes: number, backups: readonly ListedBackup[]): DatastoreFigures {
  const verified = backups.flatMap((one) => one.verified ?? [])
  return {
    bytes,
    points: backups.length,
    damaged: backups.filter(({ damage }) => damage !== undefined).length,
    hints: backups.filter(({ hint }) => hint !== undefined).length,
    alarms: backups.filter(({ manifest }) => manifest && hasWrongRecord(manifest)).length,
    unverified: backups.length - verified.length,
    ...(verified.length === 0 ? {} : { verified: Math.max(...verified) }),
  }
}

/** One that is damaged is none to count on. */
function withBackup(
  before: GuestFigures = noFigures,
  { damage, manifest, sizeBytes, hint, ctime }: ListedBackup,
): GuestFigures {
  if (damage !== undefined || !manifest) return before
  const hinted = hint === undefined ? {} : { hints: before.hints + 1, hinted: Math.max(before.hinted ?? 0, ctime) }
  const alarmed = hasWrongRecord(manifest)
    ? { alarms: before.alarms + 1, alarmed: Math.max(before.alarmed ?? 0, ctime) }
    : {}
  const counted = { ...before, points: before.points + 1, ...hinted, ...alarmed }
  const taken = Date.parse(manifest.pointInTime) / 1000
  if (before.taken !== undefined && before.taken > taken) return counted
  return { ...counted, taken, size: sizeBytes, made: madeHow(manifest) }
}
