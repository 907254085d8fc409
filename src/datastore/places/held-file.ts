/**
 * A file held by one owner, on this machine or another, for as long as the owner lives.
 *
 * The kernel's own file lock decides who holds it, so the death of a holder by any means lets go of it
 * at once: no heartbeat, no pid that may have been given to another process, no stale lock to break.
 * Node has no call for file locks, but SQLite (part of Node) takes one for an exclusive transaction;
 * the "database" stays an empty file. Rejected: a file created exclusively with a pid inside, because
 * two who find it stale at the same time can both break it.
 *
 * Invariant: nobody opens such a file by other means in this process, as closing it would drop the lock.
 */
import { truncateSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { Fault, isFault } from '#base/fault.ts'
import { type Clock, waitFor } from '#base/clock.ts'

const SQLITE_BUSY = 5
const SQLITE_NOTADB = 26

export class HeldFile implements Disposable {
  #database: DatabaseSync | undefined

  private constructor(database: DatabaseSync) {
    this.#database = database
  }

  /** Holds the file, creating it when it is absent; returns nothing when somebody else holds it. */
  static tryHold(path: string): HeldFile | undefined {
    try {
      return HeldFile.#tryHold(path)
    } catch (fault) {
      if (errorCodeOf(fault) !== SQLITE_NOTADB) throw fault
      // A disk that failed left something in it. Whoever holds it would have been met first.
      truncateSync(path)
      return HeldFile.#tryHold(path)
    }
  }

  static #tryHold(path: string): HeldFile | undefined {
    let database: DatabaseSync | undefined
    try {
      database = new DatabaseSync(path)
      database.exec('PRAGMA busy_timeout = 0; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE')
      return new HeldFile(database)
    } catch (cause) {
      database?.close()
      const fault = new Fault('failed', `'${path}' could not be locked`, { cause })
      if (errorCodeOf(fault) === SQLITE_BUSY) return undefined
      throw fault
    }
  }

  /** As `tryHold`, but waits for the holder. @throws Fault `conflict` naming `what` after `timeoutMs`. */
  static async hold(path: string, what: string, options: { timeoutMs: number; clock: Clock }): Promise<HeldFile> {
    try {
      return await waitFor(() => HeldFile.tryHold(path), { what, everyMs: 20, ...options })
    } catch (cause) {
      if (isFault(cause, 'timeout')) throw new Fault('conflict', `${what} is busy: '${path}' is locked`, { cause })
      throw cause
    }
  }

  release(): void {
    this.#database?.close()
    this.#database = undefined
  }

  [Symbol.dispose](): void {
    this.release()
  }
}

/** SQLite's. */
function errorCodeOf(fault: unknown): unknown {
  const { cause } = Object(fault) as { readonly cause?: unknown }
  return (Object(cause) as { readonly errcode?: unknown }).errcode
}
