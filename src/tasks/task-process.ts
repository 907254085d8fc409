/** A process that does tasks, one after another, as its daemon holds it. `worker.ts` is what runs in it. */
import { taskFlags } from '#base/node-flags.ts'
import { Fault } from '#base/fault.ts'
import { type DetachedChild, startDetachedChild } from '#host/programs/detached-child.ts'
import { startTimeOf } from '#host/programs/proc.ts'
import type { Go } from './go.ts'

/** A process for as long as it is there for one task. */
export interface Worker {
  readonly pid: number
  /** Clock ticks after boot. */
  readonly pstart: number
  readonly go: (go: Go) => void
  /** Sends it away before it was told anything. */
  readonly dismiss: () => void
  /** Reaches the process while it is there for this task, and makes this its last one. */
  readonly signal: (signal: NodeJS.Signals) => void
  /** Resolves when its task is over, and the process has ended or is there for another. */
  readonly ended: Promise<void>
  /** Where it prints what does not go to a log. */
  readonly output: string
}

export interface TaskProcessNeeds {
  /** Path of the file it runs, and its arguments. */
  readonly entry: string
  readonly flags: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly output: string
  /** As that of `startDetachedChild`. */
  readonly isAwaited?: boolean
  /**
   * Asked when a task of it ended well: where it prints for another one; nothing when it is to end. Without this it does
   * one.
   */
  readonly another?: (ended: Go, tasks: number) => Promise<string | undefined>
  /** Told of the worker it is then, before the earlier one has ended. */
  readonly onFree?: (worker: Worker) => void
}

interface Turn {
  readonly worker: Worker
  readonly end: () => void
  told?: Go
  /** The process has said so: who asks it to stop from now on comes too late. */
  isOver: boolean
}

export class TaskProcess {
  readonly #needs: TaskProcessNeeds
  readonly #child: DetachedChild
  readonly #pstart: number
  #turn: Turn
  #tasks = 0
  #isLast = false

  private constructor(needs: TaskProcessNeeds, child: DetachedChild, pstart: number) {
    this.#needs = needs
    this.#child = child
    this.#pstart = pstart
    this.#turn = this.#newTurn(needs.output)
    child.onWord(() => void this.#free())
  }

  /** @throws Fault `failed` when it cannot be started */
  static async start(needs: TaskProcessNeeds): Promise<Worker> {
    const { entry, flags, env, output, isAwaited } = needs
    const child = await startDetachedChild([process.execPath, ...taskFlags, entry, ...flags], {
      outputFile: output,
      env,
      ...(isAwaited === undefined ? {} : { isAwaited }),
    })
    const pstart = await startTimeOf(child.pid)
    if (pstart === undefined) throw new Fault('failed', "got no worker upid - the task's process ended at once")
    return new TaskProcess(needs, child, pstart).#turn.worker
  }

  /** It says that its task ended well and that it could do another. */
  async #free(): Promise<void> {
    const turn = this.#turn
    if (!turn.told || turn.isOver) return
    turn.isOver = true
    const output = this.#isLast ? undefined : await this.#needs.another?.(turn.told, this.#tasks)
    if (output === undefined) return this.#child.hangUp()
    this.#turn = this.#newTurn(output)
    this.#needs.onFree?.(this.#turn.worker)
    turn.end()
  }

  #newTurn(output: string): Turn {
    const { promise: ended, resolve: end } = Promise.withResolvers<void>()
    const child = this.#child
    // It may have ended already.
    void child.ended.then(end)
    const turn: Turn = {
      end,
      isOver: false,
      worker: {
        pid: child.pid,
        pstart: this.#pstart,
        output,
        ended,
        go: (go) => {
          turn.told = go
          this.#tasks += 1
          child.tell(JSON.stringify(go))
          if (!this.#needs.another) child.hangUp()
        },
        dismiss: () => child.hangUp(),
        signal: (signal) => {
          if (turn.isOver) return
          this.#isLast = true
          child.signal(signal)
        },
      },
    }
    return turn
  }
}
