/**
 * Rows of the SQLite store as values. Every method runs inside a transaction that `sqlite.ts` has begun;
 * none begins or ends one itself.
 */
import type { DatabaseSync, SQLOutputValue, StatementSync } from 'node:sqlite'
import { Fault } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import type { TextWrite } from './bounds.ts'
import type { LeaseId } from './store.ts'
import { fellBehind, type LoggedChange } from './watch.ts'

export interface EntryRow {
  readonly key: string
  readonly text: string
  readonly revision: number
}

type Row = Readonly<Record<string, SQLOutputValue>>

export class SqliteTables {
  readonly #database: DatabaseSync
  readonly #prepared = new Map<string, StatementSync>()

  constructor(database: DatabaseSync) {
    this.#database = database
    this.revision()
  }

  entry(key: string): EntryRow | undefined {
    const row = this.#sql('SELECT key, value, revision FROM entries WHERE key = ?').get(key)
    return row && toEntry(row)
  }

  /** Both answers from one snapshot; the row counts only while no lease is over. */
  entryUnlessLeaseOver(key: string, now: number): { isLeaseOver: boolean; row: EntryRow | undefined } {
    const row = this.#sql(
      `SELECT EXISTS (SELECT 1 FROM leases WHERE ends_at <= ?) AS isOver, key, value, revision
       FROM (SELECT 1) LEFT JOIN entries ON key = ?`,
    ).get(Math.floor(now), key)
    const isLeaseOver = row?.isOver === 1
    return { isLeaseOver, row: row && row.key !== null && !isLeaseOver ? toEntry(row) : undefined }
  }

  entries(prefix: string, after: string, limit: number): EntryRow[] {
    const found: EntryRow[] = []
    if (limit === 0) return found
    const from = this.#sql('SELECT key, value, revision FROM entries WHERE key >= ? AND key > ? ORDER BY key')
    for (const row of from.iterate(prefix, after)) {
      const entry = toEntry(row)
      if (!entry.key.startsWith(prefix)) break
      if (found.push(entry) === limit) break
    }
    return found
  }

  revision(): number {
    return this.#state().revision
  }

  /** Writes all and returns the revision; it rises when anything changed. */
  apply(writes: readonly TextWrite[]): number {
    const { revision } = this.#state()
    const next = revision + 1
    let changed = 0
    for (const { key, text, lease } of writes) {
      const { changes } =
        text === undefined
          ? this.#sql('DELETE FROM entries WHERE key = ?').run(key)
          : this.#sql('INSERT OR REPLACE INTO entries (key, value, revision, lease) VALUES (?, ?, ?, ?)').run(
              key,
              text,
              next,
              lease ?? null,
            )
      if (changes === 0) continue
      changed += 1
      this.#sql('INSERT INTO changes (position, key, revision, value) VALUES (?, ?, ?, ?)').run(
        this.#lastPosition() + 1,
        key,
        next,
        text ?? null,
      )
    }
    if (changed === 0) return revision
    this.#sql('UPDATE state SET revision = ?').run(next)
    return next
  }

  /** @throws Fault `exhausted` when changes after that revision are forgotten. */
  positionOf(revision: number): number {
    const { forgotten } = this.#state()
    if (revision < forgotten.revision) throw fellBehind()
    const row = this.#sql('SELECT max(position) AS position FROM changes WHERE revision <= ?').get(revision)
    return row && row.position !== null ? asNumber(row.position) : forgotten.position
  }

  /** @throws Fault `exhausted` when changes after that position are forgotten. */
  changesAfter(position: number, count: number): LoggedChange[] {
    if (position < this.#state().forgotten.position) throw fellBehind()
    return this.#sql('SELECT position, key, revision, value FROM changes WHERE position > ? ORDER BY position LIMIT ?')
      .all(position, count)
      .map((row) => ({
        position: asNumber(row.position),
        key: asText(row.key),
        revision: asNumber(row.revision),
        text: row.value === null ? undefined : asText(row.value),
      }))
  }

  /** Keeps the last `limits.store.watchQueue` changes and remembers up to where they are gone. */
  forgetOldChanges(): void {
    const upTo = this.#lastPosition() - limits.store.watchQueue
    const gone = this.#sql('SELECT max(revision) AS revision FROM changes WHERE position <= ?').get(upTo)
    if (!gone || gone.revision === null) return
    this.#sql('DELETE FROM changes WHERE position <= ?').run(upTo)
    this.#sql('UPDATE state SET forgotten_position = ?, forgotten_revision = ?').run(upTo, asNumber(gone.revision))
  }

  putLease(id: LeaseId, ttlMs: number, endsAt: number): void {
    this.#sql('INSERT OR REPLACE INTO leases (id, ttl_ms, ends_at) VALUES (?, ?, ?)').run(
      id,
      Math.ceil(ttlMs),
      Math.ceil(endsAt),
    )
  }

  /** Time to live of a lease that has not ended. */
  leaseTtl(id: LeaseId): number | undefined {
    const row = this.#sql('SELECT ttl_ms FROM leases WHERE id = ?').get(id)
    return row && asNumber(row.ttl_ms)
  }

  hasLeaseOver(now: number): boolean {
    return this.#sql('SELECT 1 FROM leases WHERE ends_at <= ? LIMIT 1').get(Math.floor(now)) !== undefined
  }

  leasesOver(now: number): LeaseId[] {
    return this.#sql('SELECT id FROM leases WHERE ends_at <= ? ORDER BY id')
      .all(Math.floor(now))
      .map(({ id }) => asText(id))
  }

  /** Removes leases and what was written under them. */
  endLeases(ids: readonly LeaseId[]): void {
    for (const id of ids) {
      const keys = this.#sql('SELECT key FROM entries WHERE lease = ? ORDER BY key').all(id)
      this.apply(keys.map(({ key }) => ({ key: asText(key), text: undefined, lease: undefined })))
      this.#sql('DELETE FROM leases WHERE id = ?').run(id)
    }
  }

  #lastPosition(): number {
    const row = this.#sql('SELECT max(position) AS position FROM changes').get()
    // Empty before the first change only: forgetting always leaves the newest ones.
    return row && row.position !== null ? asNumber(row.position) : 0
  }

  #state(): { revision: number; forgotten: { position: number; revision: number } } {
    const row = this.#sql('SELECT revision, forgotten_position, forgotten_revision FROM state').get()
    if (!row) throw new Fault('damaged', 'the store has lost its revision')
    return {
      revision: asNumber(row.revision),
      forgotten: { position: asNumber(row.forgotten_position), revision: asNumber(row.forgotten_revision) },
    }
  }

  #sql(text: string): StatementSync {
    const known = this.#prepared.get(text)
    if (known) return known
    const statement = this.#database.prepare(text)
    this.#prepared.set(text, statement)
    return statement
  }
}

function toEntry(row: Row): EntryRow {
  return { key: asText(row.key), text: asText(row.value), revision: asNumber(row.revision) }
}

function asText(value: SQLOutputValue | undefined): string {
  if (typeof value !== 'string') throw new Fault('damaged', 'the store holds a value that is not text')
  return value
}

function asNumber(value: SQLOutputValue | undefined): number {
  if (typeof value !== 'number') throw new Fault('damaged', 'the store holds a value that is not a number')
  return value
}
