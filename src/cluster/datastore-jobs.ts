/**
 * Jobs that look after datastores by themselves: a canary, a look at a part of what is stored, a copy elsewhere. With each
 * what its last run came to.
 */
import type { Clock } from '#base/clock.ts'
import { boolean, enumOf, integer, number, object, optional, string, type Static } from '#base/schema/schema.ts'
import { Documents } from '#store/document.ts'
import type { Store } from '#store/store.ts'
import { BackupCounts } from './backup-counts.ts'
import { type JobOptions, ScheduledJobs } from './scheduled-jobs.ts'

export const datastoreJobTypes = ['canary', 'verify', 'sync'] as const
export type DatastoreJobType = (typeof datastoreJobTypes)[number]

const outcomeShape = object({
  storage: string({ maxLength: 100 }),
  type: enumOf(datastoreJobTypes),
  /** Seconds since 1970. */
  ended: integer(),
  isGood: boolean(),
  says: string({ maxLength: 1_000 }),
  /** How long it took. */
  seconds: optional(number()),
  /** Read by a look, or copied. */
  bytes: optional(integer()),
  /** When a run was good last. */
  good: optional(integer()),
  /** Packs a look fetched from a copy. */
  fetched: optional(integer()),
  /** Of what was not looked at for longest: when that was, in seconds since 1970. */
  oldest: optional(integer()),
  /** Of which task; and how far that is: something was `found` that it is mending, it has `ended`, it was `told`. */
  upid: optional(string({ maxLength: 200 })),
  stage: optional(enumOf(['found', 'ended', 'told'])),
  /** People are told that something was wrong. */
  isAlarm: optional(boolean()),
})
export type DatastoreJobOutcome = Static<typeof outcomeShape>

const collectedShape = object({
  /** Seconds since 1970. */
  ended: integer(),
  seconds: number(),
  /** Absent: good. */
  isGood: optional(boolean()),
  freedBytes: integer(),
  condemnedChunks: integer(),
})
/** What the last collection of a datastore's garbage came to. */
export type CollectedOutcome = Static<typeof collectedShape>

const offered = 'cluster/datastore-jobs-offered/'

export class DatastoreJobs extends ScheduledJobs {
  readonly #outcomes: Documents<DatastoreJobOutcome>
  readonly #collected: Documents<CollectedOutcome>
  readonly #store: Store

  constructor(needs: { readonly store: Store; readonly clock: Clock }) {
    super(needs, 'datastore')
    this.#store = needs.store
    const [noun, prefix] = ['outcome of datastore job', 'cluster/datastore-outcomes/']
    this.#outcomes = new Documents(needs.store, { noun, prefix, schema: outcomeShape })
    const of = { noun: 'collection of garbage', prefix: 'cluster/datastore-collected/', schema: collectedShape }
    this.#collected = new Documents(needs.store, of)
  }

  /** Of the last run that ended. */
  async outcomeOf(id: string): Promise<DatastoreJobOutcome | undefined> {
    return (await this.#outcomes.find(id))?.value
  }

  /** By job; of those there are. */
  async outcomes(): Promise<ReadonlyMap<string, DatastoreJobOutcome>> {
    const jobs = new Set((await this.list()).map(({ id }) => id))
    const outcomes = (await this.#outcomes.list()).filter(({ name }) => jobs.has(name))
    return new Map(outcomes.map(({ name, value }) => [name, value]))
  }

  /** What a run found, or came to. */
  async cameTo(id: string, outcome: DatastoreJobOutcome): Promise<void> {
    await this.#outcomes.alter(id, (before) => {
      const good = outcome.isGood ? outcome.ended : before?.good
      return { ...outcome, says: outcome.says.slice(0, 1_000), ...(good !== undefined && { good }) }
    })
    if (outcome.stage !== 'found') await this.paid(id)
  }

  /** Nobody needs to be told of that run any more. */
  async told(id: string, upid: string): Promise<void> {
    await this.#outcomes.alter(id, (last) => (last?.upid === upid ? { ...last, stage: 'told' } : last))
  }

  override async create(id: string, options: JobOptions): Promise<void> {
    await super.create(id, options)
    // Of a job of that name which went while it ran.
    await this.#outcomes.alter(id, () => undefined)
  }

  /** By storage. */
  async collections(): Promise<ReadonlyMap<string, CollectedOutcome>> {
    return new Map((await this.#collected.list()).map(({ name, value }) => [name, value]))
  }

  async collected(storage: string, outcome: CollectedOutcome): Promise<void> {
    await this.#collected.put(storage, outcome)
  }

  override async delete(id: string): Promise<void> {
    await super.delete(id)
    await this.#outcomes.alter(id, () => undefined)
  }

  /** Takes the jobs of a storage along with it: a later one of that name is another place. */
  async forgetStorage(storage: string): Promise<void> {
    for (const { id, options } of await this.list()) {
      if ([options.storage, options.source].includes(storage)) await this.delete(id)
    }
    await this.#collected.alter(storage, () => undefined)
    await new BackupCounts(this.#store).forgetStorage(storage)
    await this.#store.transact([], [{ delete: offered + storage }])
  }

  /** Whether this datastore's jobs were made already. @param datastore its id */
  async isOffered(storage: string, datastore: string): Promise<boolean> {
    return (await this.#store.get<string>(offered + storage))?.value === datastore
  }

  /** Its jobs are made: who deletes one from now on does not get it again. @param datastore its id */
  async offered(storage: string, datastore: string): Promise<void> {
    await this.#store.transact([], [{ put: offered + storage, value: datastore }])
  }
}
