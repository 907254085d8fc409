/**
 * Performs an operation step by step, and makes it undone when it fails.
 *
 * Whatever happens, the journal is ahead of the world when something begins and behind it when something
 * ends; so a recovery may undo too much, never too little, and an undo must bear being run for nothing or
 * twice. An undo that fails is tried again, then unwinding stops: the undos before it were written for a world
 * in which it had worked (removing a directory whose file system is still mounted removes the wrong files).
 */
import { type Clock, systemClock } from '#base/clock.ts'
import { asOne, failedTwice, Fault, messageOf } from '#base/fault.ts'
import type { Json } from '#store/store.ts'
import { type Journal, stateOf } from './journal.ts'
import type { NamedStep, Operation, StepContext, TaskFacts } from './operation.ts'

/** What surrounds the steps; each part has a harmless default. */
export interface Around {
  readonly log?: (line: string) => void
  readonly warn?: (line: string) => void
  readonly progress?: StepContext<unknown, unknown, unknown>['progress']
  readonly signal?: AbortSignal
  readonly task?: TaskFacts
  readonly clock?: Clock
}

const undoAttempts = 3
/** The reason in the journal when nobody knows why the process ended. */
export const interruption = 'interrupted'
const undoPauseMs = 100
const nobody: TaskFacts = { upid: '', user: 'root@pam', node: 'localhost', startTime: 0 }

/**
 * Performs every step and returns their results. On failure or abort it undoes what began, in reverse, and
 * throws what went wrong; an undo that failed for good is named in the text.
 */
export async function perform<P, D, Done extends object>(
  operation: Operation<P, D, Done>,
  params: NoInfer<P>,
  deps: NoInfer<D>,
  journal: Journal,
  around: Around = {},
): Promise<Done> {
  const run = new Run(operation, params, deps, journal, around)
  try {
    for (const step of operation.steps) await run.do(step)
    await journal.add({ event: 'succeeded' }, !operation.steps.some(({ always }) => always))
  } catch (cause) {
    const failure = around.signal?.aborted ? new Fault('aborted', 'interrupted by signal', { cause }) : asOne(cause)
    await run.note({ event: 'unwinding', reason: messageOf(failure) })
    throw await run.undoAfter(failure)
  }
  await run.undo('always')
  // Every step has put its result there.
  return run.done as Done
}

/**
 * Finishes what a dead process left: after success the undos marked `always`, else all undos.
 * @throws Fault `failed` naming the undo that failed for good
 */
export async function unwind<P, D, Done extends object>(
  operation: Operation<P, D, Done>,
  params: NoInfer<P>,
  deps: NoInfer<D>,
  journal: Journal,
  around: Around = {},
): Promise<'succeeded' | 'undone'> {
  const { stage, toUndo } = stateOf(journal.records)
  const unknown = toUndo.find((name) => !operation.steps.some((step) => step.name === name))
  if (unknown !== undefined) throw new Fault('failed', `this version of '${operation.name}' has no step '${unknown}'`)
  const run = new Run(operation, params, deps, journal, around)
  const hasSucceeded = stage.is === 'succeeded'
  if (stage.is === 'performing') await run.note({ event: 'unwinding', reason: interruption })
  await run.undo(hasSucceeded ? 'always' : 'all')
  return hasSucceeded ? 'succeeded' : 'undone'
}

class Run<P, D, Done extends object> {
  readonly done: Record<string, unknown>
  readonly #operation: Operation<P, D, Done>
  readonly #params: P
  readonly #deps: D
  readonly #journal: Journal
  readonly #around: Around
  readonly #toUndo: string[]

  constructor(operation: Operation<P, D, Done>, params: P, deps: D, journal: Journal, around: Around) {
    this.#operation = operation
    this.#params = params
    this.#deps = deps
    this.#journal = journal
    this.#around = around
    const { done, toUndo } = stateOf(journal.records)
    this.done = { ...done }
    this.#toUndo = [...toUndo]
  }

  async do(step: NamedStep): Promise<void> {
    const signal = this.#around.signal ?? new AbortController().signal
    if (signal.aborted) throw new Fault('aborted', 'interrupted by signal')
    await this.#journal.add({ event: 'begin', step: step.name }, step.undo === undefined)
    this.#toUndo.push(step.name)
    const result = await step.do(this.#context(signal))
    this.done[step.name] = result
    // `Operation.step` lets only results through that are JSON.
    await this.#journal.add({ event: 'done', step: step.name, result: result as Json | undefined }, true)
  }

  /** Undoes in reverse what began: everything, or only the steps marked `always`. */
  async undo(which: 'all' | 'always'): Promise<void> {
    const isMeant = ({ name, always }: NamedStep) => this.#toUndo.includes(name) && (which === 'all' || always)
    const steps = this.#operation.steps.filter(isMeant).toReversed()
    for (const [index, step] of steps.entries()) {
      try {
        await this.#undoStep(step)
      } catch (cause) {
        const left = steps.slice(index).map(({ name }) => `'${name}'`)
        throw new Fault('failed', `undo of '${step.name}' failed: ${messageOf(cause)}`, {
          cause,
          remedy: `Not undone: ${left.join(', ')}. Look at what they made and remove it by hand.`,
        })
      }
    }
  }

  /** Undoes everything and returns the failure that led here, with what could not be undone in its text. */
  async undoAfter(failure: unknown): Promise<unknown> {
    try {
      await this.undo('all')
      return failure
    } catch (second) {
      return failedTwice(failure, second)
    }
  }

  /** Writes a record that must not keep anything from being undone: a full disk is a reason to undo, not to stop. */
  async note(...record: Parameters<Journal['add']>): Promise<void> {
    try {
      await this.#journal.add(...record)
    } catch (error) {
      this.#around.log?.(`the journal cannot be written: ${messageOf(error)}`)
    }
  }

  async #undoStep(step: NamedStep): Promise<void> {
    if (step.undo) {
      await this.note({ event: 'undo', step: step.name }, true)
      await this.#untilUndone(step.undo, step.name)
    }
    await this.note({ event: 'undone', step: step.name })
  }

  async #untilUndone(undo: NonNullable<NamedStep['undo']>, name: string): Promise<void> {
    const clock = this.#around.clock ?? systemClock
    for (let attempt = 1; ; attempt += 1) {
      try {
        await undo(this.#context(new AbortController().signal))
        return
      } catch (error) {
        this.#around.log?.(`undo of '${name}' failed (attempt ${attempt} of ${undoAttempts}): ${messageOf(error)}`)
        if (attempt === undoAttempts) throw error
      }
      await clock.sleep(undoPauseMs * attempt)
    }
  }

  #context(signal: AbortSignal): StepContext<never, never, never> {
    const { log = () => {}, warn = () => {}, progress = () => {}, task = nobody } = this.#around
    const context = { params: this.#params, deps: this.#deps, done: this.done, log, warn, progress, signal, task }
    // A list of steps cannot say that each takes the results of those before it; `Operation.step` has said so.
    return context as StepContext<never, never, never>
  }
}
