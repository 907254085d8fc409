/**
 * Starts the processes of tasks.
 *
 * A worker is started first and told what to do second, because its pid is part of the task's identifier and
 * the request must be on disk under that name before anything happens. A worker whose daemon dies in between
 * reads the end of its input and leaves.
 *
 * Most of what a short task takes is the start of its process. So when a task begins, one process more is
 * started and waits for the next: a worker like any other, of which nothing is on disk yet. It goes when nobody
 * needed it for a while, for it holds memory, and when the daemon ends. Rejected: one process for many tasks, of
 * which a crash would take more than one, and whose UPIDs would not tell them apart.
 */
import { taskFlags } from '#base/node-flags.ts'
import type { Random } from '#base/random.ts'
import { Fault } from '#base/fault.ts'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type DetachedChild, startDetachedChild } from '#host/programs/detached-child.ts'
import { startTimeOf } from '#host/programs/proc.ts'
import { type Settings, settingsToEnv } from '#settings.ts'
import type { TaskArchive } from './archive.ts'
import { afterFlag, type Go, recoverFlag } from './go.ts'

export interface Worker {
  readonly pid: number
  /** Clock ticks after boot. */
  readonly pstart: number
  readonly go: (go: Go) => void
  /** Sends it away before it was told anything. */
  readonly dismiss: () => void
  readonly ended: Promise<void>
  /** Where it prints what does not go to a log. */
  readonly output: string
}

/** How long a worker waits for a task before it is sent away. */
const spareMs = 10 * 60_000

export interface RunnerNeeds {
  readonly settings: Settings
  readonly archive: TaskArchive
  readonly random: Random
  readonly workerEntry: string
  /** How long a worker that was started ahead waits for its task. 0: none is. Default: ten minutes. */
  readonly spareMs?: number | undefined
}

interface Spare {
  readonly worker: Worker
  readonly timer: NodeJS.Timeout
}

export class Runner implements AsyncDisposable {
  readonly #archive: TaskArchive
  readonly #random: Random
  readonly #workerEntry: string
  readonly #environment: Readonly<Record<string, string>>
  readonly #spareMs: number
  #spare: Spare | undefined
  /** Resolves when the spare that is being started is there, or is not. */
  #preparing: Promise<void> | undefined
  #isClosed = false

  constructor(needs: RunnerNeeds) {
    // Compiled once, loaded by every worker after: that is most of the time a worker takes to start.
    const compiled = join(needs.settings.cacheDir, 'compiled')
    this.#environment = { ...settingsToEnv(needs.settings), NODE_COMPILE_CACHE: compiled }
    this.#archive = needs.archive
    this.#random = needs.random
    this.#workerEntry = needs.workerEntry
    this.#spareMs = needs.spareMs ?? spareMs
  }

  /** A worker that waits for its go. */
  async worker(): Promise<Worker> {
    // One that is being started is taken too: pids are then in the order of their tasks.
    await this.#preparing
    return this.#takeSpare() ?? this.#fresh()
  }

  /**
   * Starts a worker for the next task, unless there is one. Never rejects: that task can start its own.
   * @param after name of the operation before it: the worker gets ready for one like that
   */
  async prepare(after = ''): Promise<void> {
    if (this.#spare || this.#isClosed || this.#spareMs === 0) return
    await (this.#preparing ??= this.#prepare(after).finally(() => (this.#preparing = undefined)))
  }

  async #prepare(after: string): Promise<void> {
    const worker = await this.#fresh([`${afterFlag}${after}`]).catch(() => undefined)
    if (!worker) return
    const timer = setTimeout(() => void this.#dismissSpare(), this.#spareMs).unref()
    this.#spare = { worker, timer }
    void worker.ended.then(() => this.#forget(worker))
    if (this.#isClosed) await this.#dismissSpare()
  }

  #takeSpare(): Worker | undefined {
    const worker = this.#spare?.worker
    clearTimeout(this.#spare?.timer)
    this.#spare = undefined
    return worker
  }

  async #dismissSpare(): Promise<void> {
    const worker = this.#spare?.worker
    if (!worker) return
    await this.#forget(worker)
    worker.dismiss()
  }

  /** One that was killed while it waited, or is sent away. */
  async #forget(worker: Worker): Promise<void> {
    if (this.#spare?.worker !== worker) return
    this.#takeSpare()
    await rm(worker.output, { force: true })
  }

  /** Sends the spare away; tasks go on. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true
    await this.#preparing
    await this.#dismissSpare()
  }

  async #fresh(flags: readonly string[] = []): Promise<Worker> {
    const output = await this.#archive.newOutput(this.#random.uuid())
    try {
      return await this.#start(output, flags)
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
    return this.#start(output, [recoverFlag], { isAwaited: true })
  }

  async #start(output: string, flags: readonly string[], how: { readonly isAwaited?: boolean } = {}): Promise<Worker> {
    const child = await startDetachedChild([process.execPath, ...taskFlags, this.#workerEntry, ...flags], {
      outputFile: output,
      env: this.#environment,
      ...how,
    })
    const pstart = await startTimeOf(child.pid)
    if (pstart === undefined) throw new Fault('failed', "got no worker upid - the task's process ended at once")
    return asWorker(child, pstart, output)
  }
}

function asWorker(child: DetachedChild, pstart: number, output: string): Worker {
  return {
    pid: child.pid,
    pstart,
    go: (go) => child.give(JSON.stringify(go)),
    dismiss: () => child.give(''),
    ended: child.ended,
    output,
  }
}
