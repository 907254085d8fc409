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
import { DatabaseSync } from 'node:sqlite'
import { Fault, isFault } from '#base/fault.ts'
import { type Clock, waitFor } from '#base/clock.ts'

const SQLITE_BUSY = 5

export class HeldFile implements Disposable {
  #database: DatabaseSync | undefined

  private constructor(database: DatabaseSync) {
    this.#database = database
  }

  /** Holds the file, creating it when it is absent; returns nothing when somebody else holds it. */
  static tryHold(path: string): HeldFile | undefined {
    let database: DatabaseSync | undefined
    try {
      database = new DatabaseSync(path)
      database.exec('PRAGMA busy_timeout = 0; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE')
      return new HeldFile(database)
    } catch (cause) {
      database?.close()
      if (cause instanceof Error && 'errcode' in cause && cause.errcode === SQLITE_BUSY) return undefined
      throw new Fault('failed', `'${path}' could not be locked`, { cause })
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
