/**
 * Starts the processes of tasks.
 *
 * A worker is started first and told what to do second, because its pid is part of the task's identifier and
 * the request must be on disk under that name before anything happens. A worker whose daemon dies in between
 * reads the end of its input and leaves.
 */
import type { Random } from '#base/random.ts'
import { Fault } from '#base/fault.ts'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type DetachedChild, startDetachedChild } from '#host/detached-child.ts'
import { startTimeOf } from '#host/proc.ts'
import { type Settings, settingsToEnv } from '#settings.ts'
import type { Json } from '#store/store.ts'
import type { TaskArchive } from './archive.ts'

/** What a worker is told on its standard input. A recovering one finds operation and parameters on disk. */
export interface Go {
  readonly upid: string
  readonly operation?: string
  readonly params?: Json
}

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

/** On the worker's command line: finish what the process of that task left. */
export const recoverFlag = '--recover'

export class Runner {
  readonly #archive: TaskArchive
  readonly #random: Random
  readonly #workerEntry: string
  readonly #environment: Readonly<Record<string, string>>

  constructor(needs: { settings: Settings; archive: TaskArchive; random: Random; workerEntry: string }) {
    // Compiled once, loaded by every worker after: that is most of the time a worker takes to start.
    const compiled = join(needs.settings.cacheDir, 'compiled')
    this.#environment = { ...settingsToEnv(needs.settings), NODE_COMPILE_CACHE: compiled }
    this.#archive = needs.archive
    this.#random = needs.random
    this.#workerEntry = needs.workerEntry
  }

  /** A worker that waits for its go. */
  async worker(): Promise<Worker> {
    const output = await this.#archive.newOutput(this.#random.uuid())
    try {
      return await this.#start(output, [])
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
    const child = await startDetachedChild(
      [process.execPath, '--disable-warning=ExperimentalWarning', this.#workerEntry, ...flags],
      { outputFile: output, env: this.#environment, ...how },
    )
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
