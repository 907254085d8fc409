/**
 * Starts the processes of tasks.
 *
 * A worker is started first and told what to do second, because its pid is part of the task's identifier and
 * the request must be on disk under that name before anything happens. A worker whose daemon dies in between
 * reads the end of its input and leaves.
 *
 * Most of what a short task takes is the start of its process, and the first run of its code. So a process whose task
 * ended well waits for another, which finds what it needs loaded and compiled (docs/decisions/processes-of-tasks.md).
 * It goes when nobody needed it for a while, for it holds memory, and when the daemon ends.
 */
import { rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Random } from '#base/random.ts'
import { type Settings, settingsToEnv } from '#settings.ts'
import type { TaskArchive } from './archive.ts'
import { type Go, recoverFlag } from './go.ts'
import { TaskProcess, type Worker } from './task-process.ts'
import { asUpid } from './upid.ts'

/** How long a process waits for another task, and how long those do that wait beside one. */
const idleMs = 10 * 60_000
const besideMs = 60_000
const mostWaiting = 4
/** What a process gathers without being seen to goes with it. */
const tasksPerProcess = 100

export interface RunnerNeeds {
  readonly settings: Settings
  readonly archive: TaskArchive
  readonly random: Random
  readonly workerEntry: string
  /** How long a process waits for another task. 0: each does one. Default: ten minutes. */
  readonly idleMs?: number | undefined
}

interface Waiting {
  readonly worker: Worker
  readonly timer: NodeJS.Timeout
}

export class Runner implements AsyncDisposable {
  readonly #archive: TaskArchive
  readonly #random: Random
  readonly #workerEntry: string
  readonly #environment: Readonly<Record<string, string>>
  readonly #idleMs: number
  /** Who was at work last is taken first. */
  readonly #waiting: Waiting[] = []
  #isClosed = false

  constructor(needs: RunnerNeeds) {
    // Compiled once, loaded by every worker after: that is most of the time a worker takes to start.
    const compiled = join(needs.settings.cacheDir, 'compiled')
    this.#environment = { ...settingsToEnv(needs.settings), NODE_COMPILE_CACHE: compiled }
    this.#archive = needs.archive
    this.#random = needs.random
    this.#workerEntry = needs.workerEntry
    this.#idleMs = needs.idleMs ?? idleMs
  }

  /** A worker that waits for its go. */
  async worker(): Promise<Worker> {
    return this.#take() ?? this.#fresh()
  }

  #keep(worker: Worker): void {
    const ms = this.#waiting.length === 0 ? this.#idleMs : Math.min(this.#idleMs, besideMs)
    const timer = setTimeout(() => this.#sendAway(worker), ms).unref()
    this.#waiting.push({ worker, timer })
    void worker.ended.then(() => this.#forget(worker))
    if (this.#isClosed) this.#sendAway(worker)
  }

  #take(worker = this.#waiting.at(-1)?.worker): Worker | undefined {
    const at = this.#waiting.findIndex((one) => one.worker === worker)
    if (at < 0) return undefined
    const [taken] = this.#waiting.splice(at, 1)
    clearTimeout(taken?.timer)
    return taken?.worker
  }

  /** Sends away a worker that was told nothing yet. */
  async dismiss(worker: Worker): Promise<void> {
    worker.dismiss()
    await rm(worker.output, { force: true })
  }

  #sendAway(worker: Worker): void {
    if (this.#take(worker)) void this.dismiss(worker)
  }

  /** One that was killed while it waited. */
  #forget(worker: Worker): void {
    if (this.#take(worker)) void rm(worker.output, { force: true })
  }

  /** Sends away who waits; tasks go on. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true
    while (this.#waiting.length > 0) {
      const worker = this.#take()
      if (worker) await this.dismiss(worker)
    }
  }

  async #fresh(): Promise<Worker> {
    const output = await this.#archive.newOutput(this.#random.uuid())
    try {
      return await TaskProcess.start({
        entry: this.#workerEntry,
        flags: [],
        env: this.#environment,
        output,
        ...(this.#idleMs === 0 ? {} : { another: (ended, tasks) => this.#outputAfter(ended, tasks) }),
        onFree: (worker) => this.#keep(worker),
      })
    } catch (error) {
      await rm(output, { force: true })
      throw error
    }
  }

  /**
   * A worker that waits for its go to finish what a dead one left. A daemon that has just started waits for it,
   * and for nothing else.
   */
  async recoverer(output: string): Promise<Worker> {
    return TaskProcess.start({
      entry: this.#workerEntry,
      flags: [recoverFlag],
      env: this.#environment,
      output,
      isAwaited: true,
    })
  }

  /** Where a process prints after a task that ended well; nothing when it is not wanted for another. What it printed stays with its task. */
  async #outputAfter({ upid }: Go, tasks: number): Promise<string | undefined> {
    if (this.#isClosed || this.#waiting.length >= mostWaiting || tasks >= tasksPerProcess) return undefined
    const printed = this.#archive.outputOf(asUpid(upid))
    const output = await this.#archive.newOutput(this.#random.uuid())
    try {
      if ((await stat(printed)).size > 0) return undefined
      await rename(printed, output)
      return output
    } catch {
      return undefined // Its task was forgotten already.
    }
  }
}
