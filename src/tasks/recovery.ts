/**
 * Brings tasks whose process died to their end: undone, or finished when every step was done already.
 *
 * The work itself is done by a fresh worker process, so that a broken undo cannot take the daemon along. Which
 * process that is gets written down before it starts: a daemon that dies and returns waits for it instead of
 * starting a second one beside it.
 */
import { type Clock, waitFor } from '#base/clock.ts'
import { isFault, messageOf } from '#base/fault.ts'
import type { UpidText } from '#base/ids.ts'
import type { Log } from '#base/log.ts'
import { readIfPresent } from '#host/files.ts'
import { isAlive } from '#host/programs/proc.ts'
import type { Store } from '#store/store.ts'
import type { TaskArchive } from './archive.ts'
import { openJournal } from './journal.ts'
import { releaseLocks } from './lock.ts'
import { TaskLog } from './log.ts'
import type { Runner } from './runner.ts'
import { parseUpid } from './upid.ts'

/** A recovery that dies this often in a row dies of itself, not of the weather. */
const recoveryAttempts = 3
const lookEveryMs = 100
const roomEveryMs = 1_000

export class TaskRecovery {
  readonly #archive: TaskArchive
  readonly #runner: Runner
  readonly #store: Store
  readonly #clock: Clock
  readonly #log: Log

  constructor(needs: { archive: TaskArchive; runner: Runner; store: Store; clock: Clock; log: Log }) {
    this.#archive = needs.archive
    this.#runner = needs.runner
    this.#store = needs.store
    this.#clock = needs.clock
    this.#log = needs.log
  }

  /** Resolves when no process works on the task any more, neither its own nor one that recovers it. */
  async untilAbandoned(upid: UpidText, signal: AbortSignal): Promise<void> {
    const isAbandoned = async () => !(await this.isWorkedOn(upid))
    const what = `end of ${upid}`
    await waitFor(isAbandoned, { what, timeoutMs: Infinity, everyMs: lookEveryMs, signal, clock: this.#clock })
  }

  async isWorkedOn(upid: UpidText): Promise<boolean> {
    const { pid, pstart } = parseUpid(upid)
    const recoverer = await this.#archive.recoveryProcess(upid)
    return (await isAlive(pid, pstart)) || (recoverer !== undefined && (await isAlive(recoverer.pid, recoverer.pstart)))
  }

  /**
   * Called when nobody works on the task: makes sure it has an end and holds no lock. That takes as long as the
   * disk has no space for it; the locks are held meanwhile.
   * @param onStuck called when it comes to that
   */
  async finish(upid: UpidText, signal: AbortSignal, onStuck: () => void): Promise<void> {
    for (let attempt = 1; attempt <= recoveryAttempts; attempt += 1) {
      if (await this.#archive.end(upid)) return
      await this.#untilRoom(upid, signal, onStuck)
      this.#log.warn("a task's process ended unexpectedly", { upid, attempt })
      await this.#archive.tidy(upid)
      await this.#recoverOnce(upid)
    }
    if (!(await this.#archive.end(upid))) await this.#giveUp(upid)
  }

  /** Frees what is held by tasks of this node that have ended or that nobody knows. */
  async releaseLeftLocks(node: string): Promise<void> {
    await releaseLocks(this.#store, async (holder) => {
      const upid = (await this.#archive.all()).find((known) => known === holder)
      if (upid) return (await this.#archive.end(upid)) !== undefined
      return holder.startsWith(`UPID:${node}:`)
    })
  }

  async #untilRoom(upid: UpidText, signal: AbortSignal, onStuck: () => void): Promise<void> {
    if (await this.#archive.hasRoom(upid)) return
    this.#log.error('a task cannot be ended until there is space for its journal', { upid })
    onStuck()
    const hasRoom = () => this.#archive.hasRoom(upid)
    await waitFor(hasRoom, { what: 'space', timeoutMs: Infinity, everyMs: roomEveryMs, signal, clock: this.#clock })
    using log = new TaskLog(this.#archive.logOf(upid))
    log.line('there was no space for the journal of this task')
  }

  async #recoverOnce(upid: UpidText): Promise<void> {
    const worker = await this.#runner.recoverer(this.#archive.outputOf(upid))
    try {
      await this.#archive.writeRecoveryProcess(upid, { pid: worker.pid, pstart: worker.pstart })
    } catch (error) {
      worker.dismiss()
      throw error
    }
    worker.go({ upid })
    await worker.ended
  }

  /** The world stays as it is; a person has to look. Locks are released, or that person could do nothing. */
  async #giveUp(upid: UpidText): Promise<void> {
    const output = (await readIfPresent(this.#archive.outputOf(upid))) ?? ''
    const exitstatus = `interrupted: not undone, the process that should undo it ends each time (${lastWordsIn(output)})`
    try {
      await this.#settle(upid, exitstatus)
      {
        using log = new TaskLog(this.#archive.logOf(upid))
        log.end(exitstatus)
      }
      await releaseLocks(this.#store, (holder) => holder === upid)
      await this.#archive.writeEnd(upid, { exitstatus, endedAtMs: this.#clock.now() })
    } catch (error) {
      this.#log.error('a task cannot be ended', { upid, error: messageOf(error) })
    }
  }

  /** From here on nobody undoes it any more, which must be on disk before its locks are free. */
  async #settle(upid: UpidText, exitstatus: string): Promise<void> {
    try {
      await using journal = await openJournal(this.#archive.journalOf(upid))
      await journal.add({ event: 'settled', exitstatus })
    } catch (error) {
      // From a damaged journal nobody undoes anything anyway.
      if (!isFault(error, 'damaged')) throw error
    }
  }
}

/** The error in what a crashed process printed, without its stack. */
function lastWordsIn(output: string): string {
  const lines = output.split('\n').filter((line) => line.trim() !== '')
  return (lines.findLast((line) => /^\S*(Error|Fault)\b.*:/.test(line)) ?? lines.at(-1))?.trim() ?? 'it printed nothing'
}
