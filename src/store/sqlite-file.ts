/**
 * The file of the SQLite store: how it is opened, what is in it, and what its errors mean to a person.
 *
 * WAL, so that readers never wait for the writer; `synchronous=FULL`, so that an acknowledged write survives
 * power loss; a busy time-out, because other processes of the node write too. SQLite itself recovers from a
 * killed writer: the next one that opens the file reads the log up to its last whole commit.
 */
import { closeSync, openSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { systemClock, waitFor } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'

/** Of the tables below; raised with every change of them. */
const formatVersion = 1
/** Marks the file as ours: 'hako' in ASCII. */
const applicationId = 0x68_61_6b_6f
const busyTimeoutMs = 10_000

const tables = `
  CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL, revision INTEGER NOT NULL, lease TEXT
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS entries_by_lease ON entries (lease) WHERE lease IS NOT NULL;
  CREATE TABLE IF NOT EXISTS changes (
    position INTEGER PRIMARY KEY, key TEXT NOT NULL, revision INTEGER NOT NULL, value TEXT
  ) STRICT;
  CREATE INDEX IF NOT EXISTS changes_by_revision ON changes (revision);
  CREATE TABLE IF NOT EXISTS leases (
    id TEXT PRIMARY KEY NOT NULL, ttl_ms INTEGER NOT NULL, ends_at INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS state (
    only INTEGER PRIMARY KEY CHECK (only = 1), revision INTEGER NOT NULL,
    forgotten_position INTEGER NOT NULL, forgotten_revision INTEGER NOT NULL
  ) STRICT;
  INSERT OR IGNORE INTO state VALUES (1, 0, 0, 0);
  PRAGMA application_id = ${applicationId};
  PRAGMA user_version = ${formatVersion};
`

/**
 * Opens the file, creating it (mode 0600) where there is none.
 * @param isChecked looks at the structure of every page first; a few milliseconds per megabyte
 * @throws Fault `damaged` when it is not a store or not whole, `unavailable` when it cannot be opened
 */
export async function openStoreFile(path: string, isChecked: boolean): Promise<DatabaseSync> {
  try {
    // SQLite would create it readable by everybody; its -wal and -shm files take this file's mode.
    closeSync(openSync(path, 'a', 0o600))
    const database = new DatabaseSync(path, { timeout: busyTimeoutMs })
    try {
      await switchToWal(database)
      prepareTables(database, path)
      if (isChecked) checkPages(database, path)
      return database
    } catch (error) {
      database.close()
      throw error
    }
  } catch (error) {
    throw asStoreFault(error, path)
  }
}

/** Two processes that open a new file at once may each find it locked; the busy time-out does not cover this. */
async function switchToWal(database: DatabaseSync): Promise<void> {
  const attempt = () => {
    try {
      database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF;')
      return true
    } catch (error) {
      if (primaryCode(error) === sqliteBusy) return false
      throw error
    }
  }
  await waitFor(attempt, { what: 'opening the store', timeoutMs: busyTimeoutMs, clock: systemClock })
}

function prepareTables(database: DatabaseSync, path: string): void {
  const numberOf = (pragma: string) => Number(database.prepare(`PRAGMA ${pragma}`).get()?.[pragma])
  if (numberOf('user_version') === formatVersion && numberOf('application_id') === applicationId) return
  database.exec('BEGIN IMMEDIATE')
  // Asked again now that no other process can be creating the tables.
  const [version, id] = [numberOf('user_version'), numberOf('application_id')]
  const isNew = version === 0 && id === 0 && database.prepare('SELECT 1 FROM sqlite_schema').get() === undefined
  if (!isNew && id !== applicationId) throw damaged(path, 'it is a database of another program')
  if (!isNew && version !== formatVersion) {
    throw new Fault('failed', `the store '${path}' has format ${version}; this version reads format ${formatVersion}`, {
      remedy: 'Run the version that wrote it, or a newer one.',
    })
  }
  if (isNew) database.exec(tables)
  database.exec('COMMIT')
}

function checkPages(database: DatabaseSync, path: string): void {
  const complaint = database.prepare('PRAGMA quick_check(1)').get()?.quick_check
  if (complaint !== 'ok') throw damaged(path, String(complaint))
}

const sqliteBusy = 5

/** SQLite's primary result code, without the detail in the upper bytes. */
function primaryCode(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('errcode' in error) || typeof error.errcode !== 'number') return undefined
  return error.errcode & 0xff
}

/** Gives an error of SQLite the kind a user understands. */
export function asStoreFault(error: unknown, path: string): unknown {
  if (error instanceof Fault || !(error instanceof Error)) return error
  switch (primaryCode(error)) {
    case 11: // SQLITE_CORRUPT
    case 26: // SQLITE_NOTADB
      return damaged(path, error.message, error)
    case 13: // SQLITE_FULL
      return new Fault('exhausted', `no space left for the store '${path}'`, {
        cause: error,
        remedy: 'Free space on its file system, then try again.',
      })
    case sqliteBusy:
      return new Fault('unavailable', `the store '${path}' was busy for ${busyTimeoutMs / 1000} s`, { cause: error })
    case 8: // SQLITE_READONLY
    case 10: // SQLITE_IOERR
    case 14: // SQLITE_CANTOPEN
      return new Fault('unavailable', `the store '${path}' cannot be read or written: ${error.message}`, {
        cause: error,
        remedy: 'Check the disk and the permissions of the directory, then start the node again.',
      })
    default:
      return new Fault('unavailable', `the store '${path}' failed: ${error.message}`, { cause: error })
  }
}

function damaged(path: string, detail: string, cause?: unknown): Fault {
  return new Fault('damaged', `the store '${path}' is damaged: ${detail}`, {
    cause,
    remedy:
      `Stop the node, move '${path}' and its -wal and -shm files aside, put the newest copy of the state directory ` +
      `in their place, and start the node again. "sqlite3 ${path} .recover" shows what can still be read.`,
  })
}
