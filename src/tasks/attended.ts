/**
 * Tasks the daemon attends to itself: nothing is computed, something is open (a console). They are in every list
 * and have a log, and stopping one closes what it stands for; but they take neither a process nor a slot of those
 * that work, or a few open consoles would hold up every backup.
 *
 * Such a task ends with the daemon. One whose daemon was killed is ended by the next, which undoes nothing:
 * what was open closed with the process.
 */
import type { Clock } from '#base/clock.ts'
import type { UpidText } from '#base/ids.ts'
import { startTimeOf } from '#host/programs/proc.ts'
import type { TaskArchive } from './archive.ts'
import { TaskLog } from './log.ts'
import { printUpid } from './upid.ts'

export interface AttendedBy {
  /** Type in the UPID: `vncproxy`. */
  readonly type: string
  /** What it is about, usually a vmid. */
  readonly id: string
  /** `user@realm`, or `user@realm!token`. */
  readonly user: string
}

export interface Attended {
  readonly upid: UpidText
  readonly log: (line: string) => void
  /** Fires when somebody asks the task to stop. */
  readonly signal: AbortSignal
  /** @param exitstatus `OK`, or why not */
  readonly end: (exitstatus: string) => Promise<void>
  readonly ended: Promise<void>
}

export class AttendedTasks {
  readonly #archive: TaskArchive
  readonly #clock: Clock
  readonly #node: string
  readonly #open = new Map<UpidText, AbortController>()

  constructor({ archive, clock, node }: { archive: TaskArchive; clock: Clock; node: string }) {
    this.#archive = archive
    this.#clock = clock
    this.#node = node
  }

  async begin(wanted: AttendedBy): Promise<Attended> {
    const stop = new AbortController()
    const upid = await this.#reserve(wanted, stop)
    let log: TaskLog
    try {
      await this.#archive.create(upid, { operation: wanted.type, params: null, isAttended: true })
      log = new TaskLog(this.#archive.logOf(upid))
    } catch (error) {
      this.#open.delete(upid)
      throw error
    }
    const { promise: ended, resolve } = Promise.withResolvers<void>()
    let isOver = false
    return {
      upid,
      signal: stop.signal,
      ended,
      log: (line) => void (isOver || log.line(line)),
      end: async (exitstatus) => {
        if (isOver) return
        isOver = true
        try {
          log.end(exitstatus)
          await this.#archive.writeEnd(upid, { exitstatus, endedAtMs: this.#clock.now() })
        } finally {
          log[Symbol.dispose]()
          this.#open.delete(upid)
          resolve()
        }
      },
    }
  }

  /** False when it is none of these. */
  stop(upid: UpidText): boolean {
    const stop = this.#open.get(upid)
    stop?.abort()
    return stop !== undefined
  }

  /** Ends what an earlier daemon attended to. */
  async endLeft(upid: UpidText): Promise<void> {
    const exitstatus = 'interrupted: the node was ended'
    using log = new TaskLog(this.#archive.logOf(upid))
    log.end(exitstatus)
    await this.#archive.writeEnd(upid, { exitstatus, endedAtMs: this.#clock.now() })
  }

  /** All have the same process, so two of one kind in one second would have one name: the later waits a second. */
  async #reserve({ type, id, user }: AttendedBy, stop: AbortController): Promise<UpidText> {
    const pstart = (await startTimeOf(process.pid)) ?? 0
    for (;;) {
      const now = this.#clock.now()
      const starttime = Math.floor(now / 1000)
      const upid = printUpid({ node: this.#node, pid: process.pid, pstart, starttime, type, id, user })
      if (!this.#open.has(upid)) {
        this.#open.set(upid, stop)
        if ((await this.#archive.request(upid)) === undefined) return upid
        this.#open.delete(upid)
      }
      await this.#clock.sleep((starttime + 1) * 1000 - now)
    }
  }
}
