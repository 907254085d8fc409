/**
 * The store of one node: a SQLite file that any number of processes may open.
 *
 * Writes that are asked for within one turn of the event loop are committed together, because a commit costs
 * a disk sync whatever its size. Each write checks all that may refuse it before it changes anything, so one
 * that is refused leaves nothing for the others to trip over, and needs no savepoint; an error of the disk
 * refuses the whole group.
 *
 * Who may run beside whom: every process, in any number. `BEGIN IMMEDIATE` makes one writer at a time;
 * readers see whole commits only; changes of other processes are found by `PRAGMA data_version` while somebody
 * watches. Rejected: a thread for SQLite, which would hide a blocking sync of milliseconds behind a copy of
 * every value.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { type Clock, systemClock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { type Random, systemRandom } from '#base/random.ts'
import {
  checkKey,
  checkListSize,
  checkTimeToLive,
  closedStore,
  conflictAt,
  leaseEnded,
  listBound,
  prepareWrites,
  textToValue,
} from './bounds.ts'
import { asStoreFault, openStoreFile } from './sqlite-file.ts'
import { isFollowed, passing } from '#base/trace.ts'
import { type MarkFile, openMark } from './mark.ts'
import { type EntryRow, SqliteTables } from './sqlite-tables.ts'
import type { Change, Entry, Guard, Json, Lease, Store, Write } from './store.ts'
import { follow, News } from './watch.ts'

export interface SqliteOptions {
  readonly clock?: Clock
  readonly random?: Random
  /** False skips the check of the whole file, for a process that is started often. Default: true. */
  readonly isChecked?: boolean
}

/** Opens the store in that file, creating it. @throws Fault `damaged` naming the file and what to do. */
export async function openSqliteStore(path: string, options: SqliteOptions = {}): Promise<Store> {
  const { clock = systemClock, random = systemRandom, isChecked = true } = options
  const database = await openStoreFile(path, isChecked)
  try {
    return new SqliteStore(path, database, clock, random)
  } catch (error) {
    throw asStoreFault(error, path)
  }
}

/** The mark of the store in that file. */
export function markPath(path: string): string {
  return `${path}.mark`
}

/** A write that waits for the next commit. */
interface Job {
  readonly run: () => void
  readonly settle: (commitFailure: unknown) => void
}

class SqliteStore implements Store {
  readonly mark: MarkFile
  readonly #path: string
  readonly #database: DatabaseSync
  readonly #clock: Clock
  readonly #random: Random
  readonly #tables: SqliteTables
  readonly #news: News
  readonly #dataVersion: StatementSync
  #knownVersion: number
  #queue: Job[] = []

  constructor(path: string, database: DatabaseSync, clock: Clock, random: Random) {
    this.#path = path
    this.mark = openMark(markPath(path))
    this.#database = database
    this.#clock = clock
    this.#random = random
    this.#tables = new SqliteTables(database)
    this.#dataVersion = database.prepare('PRAGMA data_version')
    this.#knownVersion = this.#readDataVersion()
    this.#news = new News(() => this.#someoneElseWrote())
  }

  get = async <T extends Json>(key: string): Promise<Entry<T> | undefined> => {
    checkKey(key)
    const row = isFollowed() ? await passing('store', 'read', () => this.#readOne(key)) : this.#readOne(key)
    return row && { key, value: textToValue<T>(key, row.text), revision: row.revision }
  }

  list = async <T extends Json>(
    prefix: string,
    { after = '', limit }: { readonly after?: string; readonly limit?: number } = {},
  ): Promise<Entry<T>[]> => {
    const read = () => this.#read((tables) => tables.entries(prefix, after, listBound(limit)))
    const rows = isFollowed() ? await passing('store', 'read', read) : read()
    checkListSize(prefix, rows.length)
    return rows.map(({ key, text, revision }) => ({ key, value: textToValue<T>(key, text), revision }))
  }

  transact = async (guards: readonly Guard[], writes: readonly Write[]): Promise<number> => {
    const prepared = prepareWrites(guards, writes)
    const write = (tables: SqliteTables) => {
      for (const guard of guards) {
        const found = tables.entry(guard.key)?.revision ?? 0
        if (found !== guard.revision) throw conflictAt(guard, found)
      }
      for (const { lease } of prepared) if (lease !== undefined && !tables.leaseTtl(lease)) throw leaseEnded(lease)
      return tables.apply(prepared)
    }
    return isFollowed() ? passing('store', 'write', () => this.#inNextCommit(write)) : this.#inNextCommit(write)
  }

  revision = async (): Promise<number> => this.#read((tables) => tables.revision())

  watch = (prefix: string, since: number, signal: AbortSignal): AsyncIterable<Change> =>
    follow(
      {
        positionOf: (revision) => this.#read((tables) => tables.positionOf(revision)),
        after: (position, count) => this.#read((tables) => tables.changesAfter(position, count)),
      },
      this.#news,
      prefix,
      since,
      signal,
    )

  lease = async (ttlMs: number): Promise<Lease> => {
    checkTimeToLive(ttlMs)
    const id = this.#random.uuid()
    await this.#inNextCommit((tables) => tables.putLease(id, ttlMs, this.#clock.now() + ttlMs))
    return {
      id,
      renew: () =>
        this.#inNextCommit((tables) => {
          const ttl = tables.leaseTtl(id)
          if (!ttl) throw leaseEnded(id)
          tables.putLease(id, ttl, this.#clock.now() + ttl)
        }),
      [Symbol.asyncDispose]: () => this.#inNextCommit((tables) => tables.endLeases([id])),
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#news.isClosed) return
    this.#commit()
    this.#news.close()
    this.#database.close()
    this.mark[Symbol.dispose]()
  }

  /** Reads in one snapshot; leases that are over have ended before it. */
  #read<T>(ask: (tables: SqliteTables) => T): T {
    if (this.#news.isClosed) throw closedStore()
    try {
      this.#endLeasesThatAreOver()
      this.#database.exec('BEGIN')
      try {
        return ask(this.#tables)
      } finally {
        this.#database.exec('COMMIT')
      }
    } catch (error) {
      throw asStoreFault(error, this.#path)
    }
  }

  /** As `#read`, for one entry: one statement is a snapshot by itself, and this is asked for in every request. */
  #readOne(key: string): EntryRow | undefined {
    if (this.#news.isClosed) throw closedStore()
    try {
      const { isLeaseOver, row } = this.#tables.entryUnlessLeaseOver(key, this.#clock.now())
      if (!isLeaseOver) return row
    } catch (error) {
      throw asStoreFault(error, this.#path)
    }
    return this.#read((tables) => tables.entry(key))
  }

  #endLeasesThatAreOver(): void {
    if (this.#tables.hasLeaseOver(this.#clock.now())) this.#commit(true)
  }

  #inNextCommit<T>(change: (tables: SqliteTables) => T): Promise<T> {
    if (this.#news.isClosed) return Promise.reject(closedStore())
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    let outcome: { readonly value: T } | { readonly refusal: Fault } | undefined
    const run = () => {
      try {
        outcome = { value: change(this.#tables) }
      } catch (error) {
        if (!(error instanceof Fault)) throw error
        outcome = { refusal: error }
      }
    }
    const settle = (commitFailure: unknown) => {
      if (outcome === undefined || commitFailure !== undefined) reject(commitFailure as Error)
      else if ('value' in outcome) resolve(outcome.value)
      else reject(outcome.refusal)
    }
    if (this.#queue.push({ run, settle }) === 1) setImmediate(() => this.#commit())
    return promise
  }

  /** Commits what waits. Answers nobody before the commit is on disk. */
  #commit(isLeaseOver = false): void {
    const jobs = this.#queue
    if ((jobs.length === 0 && !isLeaseOver) || !this.#database.isOpen) return
    this.#queue = []
    let failure: unknown
    try {
      this.#database.exec('BEGIN IMMEDIATE')
      this.#tables.endLeases(this.#tables.leasesOver(this.#clock.now()))
      for (const job of jobs) job.run()
      this.#tables.forgetOldChanges()
      this.#database.exec('COMMIT')
      this.mark.touch()
    } catch (error) {
      failure = asStoreFault(error, this.#path)
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK')
    }
    for (const job of jobs) job.settle(failure)
    if (isLeaseOver && failure !== undefined) throw failure
    this.#news.tell()
  }

  #readDataVersion(): number {
    return Number(this.#dataVersion.get()?.data_version)
  }

  #someoneElseWrote(): boolean {
    this.#endLeasesThatAreOver()
    const version = this.#readDataVersion()
    if (version === this.#knownVersion) return false
    this.#knownVersion = version
    return true
  }
}
