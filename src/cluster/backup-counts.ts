/**
 * What is counted of backups for metrics, as the backups themselves do not tell it: what pruning did last, retries, and those
 * that failed.
 */
import { integer, object, optional, type Static } from '#base/schema/schema.ts'
import { Documents } from '#store/document.ts'
import type { Store } from '#store/store.ts'

const shape = object({
  pruned: optional(
    object({
      /** Seconds since 1970, as all times here. */
      ended: integer(),
      kept: integer(),
      removed: integer(),
    }),
  ),
  /** Backups a job tried once more, since the storage is there. */
  retries: optional(integer()),
  retried: optional(integer()),
  /** Backups that failed, of the guest or to the storage, and when the last one did. */
  failures: optional(integer()),
  failed: optional(integer()),
})
export type BackupCount = Static<typeof shape>

/** `storage/local`, or `vm/100`: of a guest that was pruned by itself, after its backup, or whose backup failed. */
export type Counted = `${'storage' | 'vm' | 'ct'}/${string}`

export class BackupCounts {
  readonly #documents: Documents<BackupCount>

  constructor(store: Store) {
    this.#documents = new Documents(store, {
      noun: 'count of backups',
      prefix: 'cluster/backup-counts/',
      schema: shape,
    })
  }

  async all(): Promise<ReadonlyMap<string, BackupCount>> {
    return new Map((await this.#documents.list()).map(({ name, value }) => [name, value]))
  }

  async pruned(what: Counted, pruned: NonNullable<BackupCount['pruned']>): Promise<void> {
    await this.#documents.alter(what, (before) => ({ ...before, pruned }))
  }

  /** @param count guests whose backup is tried once more */
  async retried(storage: string, count: number, at: number): Promise<void> {
    await this.#documents.alter(`storage/${storage}`, (before) => ({
      ...before,
      retries: (before?.retries ?? 0) + count,
      retried: at,
    }))
  }

  async failed(what: Counted, count: number, at: number): Promise<void> {
    await this.#documents.alter(what, (before) => ({
      ...before,
      failures: (before?.failures ?? 0) + count,
      failed: at,
    }))
  }

  /** A later storage of that name is another place. */
  async forgetStorage(storage: string): Promise<void> {
    await this.#documents.alter(`storage/${storage}`, () => undefined)
  }
}
