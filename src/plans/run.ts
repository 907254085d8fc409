/**
 * Runs a plan: assumptions first, then its steps, then what validates, then the undo of what was only for the run.
 *
 * After every event the state is saved, before it a step is marked as begun; so a run that is killed goes on at the
 * first step that is not proven. A step nobody knows the end of is joined where its task can be found, else undone and
 * done again, else done again when it may be repeated; a step that allows none of these waits for a decision.
 *
 * A run stops at the first step that does not hold: what follows it was written for a world in which it had.
 */
import { Fault, isFault, messageOf, wholeMessageOf } from '#base/fault.ts'
import { exists, taskEnd } from './act.ts'
import { demandGrant, demandUnmade, type Grants } from './grant.ts'
import type { Plan, PlanStep } from './plan.ts'
import { filledText, namesIn, type Values } from './template.ts'
import { attempted, isAlready, slowness } from './attempt.ts'
import {
  type Attempt,
  type Decision,
  endedWith,
  isoOf,
  type Outcome,
  type RunState,
  type StepState,
} from './run-state.ts'
import { undoStep } from './undo.ts'
import type { Value } from './value.ts'
import type { PlanWorld } from './world.ts'

export interface RunOptions {
  readonly plan: Plan
  readonly world: PlanWorld
  readonly secrets: ReadonlyMap<string, string>
  readonly grants: Grants
  /** Who started this attempt: what is answered and decided in it is theirs. */
  readonly by: string
  /** Answers to questions, by step. */
  readonly answers: Readonly<Record<string, string>>
  readonly decisions: readonly Decision[]
  /** How long each step took in earlier runs, in milliseconds. */
  readonly earlier: ReadonlyMap<string, readonly number[]>
  /** Whether the proof of an earlier attempt of this run holds. */
  readonly isProven: (evidence: string) => Promise<boolean>
}

export class PlanRun {
  readonly #options: RunOptions
  #state: RunState

  /** @param state with the attempt that begins as its last */
  constructor(state: RunState, options: RunOptions) {
    this.#state = state
    this.#options = options
  }

  get state(): RunState {
    return this.#state
  }

  get attempt(): Attempt {
    const last = this.#state.attempts.at(-1)
    if (!last) throw new Error('a run has an attempt')
    return last
  }

  /** Values by name, with what steps have recorded. */
  get values(): Values {
    const recorded = Object.entries(this.#state.steps).flatMap(([id, step]) =>
      Object.entries(step.recorded ?? {}).map(([name, value]): [string, Value] => [`steps.${id}.${name}`, value]),
    )
    const own: [string, Value][] = [
      ['node', this.#options.world.node],
      ['run', this.#state.run],
    ]
    return new Map<string, Value>([...own, ...Object.entries(this.#state.values), ...recorded])
  }

  /** Goes on until the end, or until something stops it; the outcome is in the state. Throws for an abort alone. */
  async perform(): Promise<void> {
    const { plan, world } = this.#options
    for (const [at, step] of plan.steps.entries()) {
      if (world.signal.aborted) return this.#end('interrupted')
      world.progress(step.id, at / plan.steps.length)
      const isSettled = await this.#isSettled(step)
      if (isSettled) await this.#tellIdle(step)
      const goesOn = isSettled || (await this.#decided(step)) || (await this.#do(step))
      if (!goesOn) {
        const result = this.#state.steps[step.id]?.result
        return this.#end(
          world.signal.aborted || result === 'begun' ? 'interrupted' : result === 'waiting' ? 'waiting' : 'failed',
        )
      }
    }
    if (!(await this.#tidyUp())) return this.#end('failed')
    const isWhole = plan.steps.every(({ id }) => this.#state.steps[id]?.result === 'proven')
    await this.#end(isWhole ? 'proven' : 'decided')
  }

  /** Undoes what the run did, the last first. */
  async undo(): Promise<void> {
    for (const step of this.#options.plan.steps.toReversed()) {
      const before = this.#state.steps[step.id]
      if (!before || before.result === 'undone' || step.undo.length === 0) continue
      await this.#named(step, before)
      const isDone = before.isUndone === true || this.#isUnnamed(step) || (await this.#undo(step, before))
      if (!isDone) return this.#end('failed')
      const undone = { result: 'undone', evidence: this.attempt.id } as const
      await this.#note(step, { ...(this.#state.steps[step.id] ?? before), ...undone })
    }
    await this.#end('undone')
  }

  /** What a step was making when it was interrupted has a name once its task has ended. */
  async #named(step: PlanStep, before: StepState): Promise<void> {
    if (!this.#isUnnamed(step) || before.result !== 'begun') return
    const task = before.task ?? (await this.#taskOf(step, before))
    if (task === undefined || !(await this.#hasDone(task, step))) return
    await this.#settle(step, await this.#tried(step, task, false))
  }

  /** Proven before, by evidence that still holds, of the same step. */
  async #isSettled(step: PlanStep): Promise<boolean> {
    const before = this.#state.steps[step.id]
    if (!before || !['proven', 'skipped', 'waived'].includes(before.result)) return false
    if (before.digest !== step.digest) {
      await this.#surprise(step, 'the step was changed since it was done: it is done again')
      return false
    }
    if (before.evidence === this.attempt.id || (await this.#options.isProven(before.evidence))) return true
    await this.#surprise(step, `evidence ${before.evidence} does not hold: the step is done again`)
    return false
  }

  /** Whoever decides on what is settled already would else take it for decided their way. */
  async #tellIdle(step: PlanStep): Promise<void> {
    const decision = this.#options.decisions.find((one) => one.step === step.id)
    const before = this.#state.steps[step.id]
    if (!decision || !before) return
    await this.#surprise(step, `it is ${before.result} already: '${decision.kind}' changes nothing`)
  }

  async #decided(step: PlanStep): Promise<boolean> {
    const decision = this.#options.decisions.find((one) => one.step === step.id)
    if (!decision || decision.kind === 'continue') return false
    const result = decision.kind === 'skip' ? 'skipped' : 'waived'
    const now = this.#now()
    const { digest, id } = step
    const state = {
      result,
      digest,
      began: now,
      ended: now,
      tries: 0,
      reason: decision.reason,
      evidence: this.attempt.id,
    } as const
    await this.#note(step, state)
    this.#options.world.warn(`${id}: ${result}: ${decision.reason}`)
    return true
  }

  async #do(step: PlanStep): Promise<boolean> {
    const { world } = this.#options
    const before = this.#state.steps[step.id]
    try {
      const isSo = await isAlready(step, { world, values: this.values })
      const { mayBegin, joined } = isSo ? { mayBegin: true } : await this.#mended(step, before)
      if (!mayBegin) return false
      const result = await this.#tried(step, joined, isSo)
      if (result.result === 'waiting') {
        await this.#note(step, result)
        return false
      }
      const slow = slowness(result.tookMs ?? 0, this.#options.earlier.get(step.id) ?? [])
      if (slow !== undefined) await this.#surprise(step, slow)
      if (result.tries > 1) await this.#surprise(step, `it took ${result.tries} tries`)
      await this.#settle(step, result)
      world.log(`${this.#now()} ${step.id} proven: ${result.found ?? ''}`)
      return true
    } catch (error) {
      // An abort says nothing about the step; it is looked after when the run goes on.
      if (world.signal.aborted) return false
      await this.#fail(step, error)
      return false
    }
  }

  /** In one: what it destroyed is no longer there to be removed, and what it made by a name of the node's is. */
  async #settle(step: PlanStep, result: StepState): Promise<void> {
    this.#state = { ...this.#state, steps: { ...this.#state.steps, [step.id]: result } }
    const isReplaced = step.destroys === step.makes
    const gone = step.destroys === undefined || isReplaced ? undefined : filledText(step.destroys, this.values)
    const came = namesItselfLater(step) ? this.#objectOf(step) : undefined
    const left = this.#state.made.filter(({ object }) => object !== gone && object !== came)
    this.#state = { ...this.#state, made: [...left, ...(came === undefined ? [] : [{ object: came, step: step.id }])] }
    await this.#options.world.save(this.#state)
  }

  #objectOf({ makes }: PlanStep): string | undefined {
    return makes === undefined ? undefined : filledText(makes, this.values)
  }

  /** It made nothing anybody has a name of, so there is nothing to undo. */
  #isUnnamed(step: PlanStep): boolean {
    return namesItselfLater(step) && this.#state.steps[step.id]?.recorded === undefined
  }

  async #fail(step: PlanStep, error: unknown): Promise<void> {
    const { world } = this.#options
    const found = world.hide(wholeMessageOf(error)).slice(0, 2_000)
    const begun = this.#state.steps[step.id] ?? this.#begun(step)
    // Nobody knows whether a call that was not answered was heard.
    const result = isFault(error, 'unavailable') && step.class !== 'read' ? 'begun' : 'failed'
    await this.#note(step, { ...begun, result, ended: this.#now(), found, evidence: this.attempt.id })
    world.log(`${this.#now()} ${step.id} FAILED: ${found}`)
  }

  /** Brings a step that was begun before, or failed, to where it may begin; `joined` is a task that did it meanwhile. */
  async #mended(step: PlanStep, before: StepState | undefined): Promise<{ mayBegin: boolean; joined?: string }> {
    if (!before || !['begun', 'failed'].includes(before.result)) return { mayBegin: true }
    const { world, decisions } = this.#options
    let isKnownUndone = before.result === 'failed' || before.call === undefined
    if (before.result === 'begun') {
      await this.#surprise(step, 'it was interrupted before its end was known')
      const task = before.task ?? (await this.#taskOf(step, before))
      if (task !== undefined && (await this.#hasDone(task, step))) return { mayBegin: true, joined: task }
      // A task that fails undoes what it did.
      isKnownUndone ||= task !== undefined
    }
    if (step.undo.length > 0 && !this.#isUnnamed(step)) return { mayBegin: await this.#undo(step, before) }
    const isDecided = decisions.some((one) => one.step === step.id && one.kind === 'continue')
    if (isKnownUndone || step.isRepeatable || isDecided) return { mayBegin: true }
    const found = 'nobody knows whether it was done, and it may not be repeated: decide to continue, skip or waive it'
    await this.#note(step, { ...before, result: 'waiting', found, evidence: this.attempt.id })
    world.log(`${this.#now()} ${step.id}: ${found}`)
    return { mayBegin: false }
  }

  async #hasDone(task: string, step: PlanStep): Promise<boolean> {
    const { world } = this.#options
    try {
      await taskEnd(task, { world, deadline: world.clock.monotonic() + step.timeoutSeconds * 1000 })
      return true
    } catch (error) {
      if (world.signal.aborted) throw error
      await this.#surprise(step, `its task had failed: ${world.hide(messageOf(error))}`)
      return false
    }
  }

  /** The task an attempt that died had just started for the step. */
  async #taskOf(step: PlanStep, before: StepState): Promise<string | undefined> {
    const attempt = this.#state.attempts.find(({ id }) => id === before.evidence)
    if (!attempt || step.act.kind === 'wait' || step.act.kind === 'probe') return undefined
    const taken = new Set(Object.values(this.#state.steps).map(({ task }) => task))
    return (await this.#options.world.startedBy(attempt.upid)).find((upid) => !taken.has(upid))
  }

  async #tried(step: PlanStep, joined: string | undefined, isSo: boolean): Promise<StepState> {
    const { world, secrets, grants, answers, by } = this.#options
    const begun = this.#begun(step)
    const object = isSo || namesItselfLater(step) ? undefined : this.#objectOf(step)
    if (joined === undefined && !isSo) {
      await demandGrant(step, { state: this.#state, values: this.values, grants })
      if (object !== undefined && step.destroys !== step.makes) await demandUnmade(object, step, this.#state, world)
    }
    const made = object === undefined || this.#hasMade(object) ? [] : [{ object, step: step.id }]
    this.#state = { ...this.#state, made: [...this.#state.made, ...made] }
    await this.#note(step, joined === undefined ? begun : { ...begun, task: joined })
    return attempted(step, begun, {
      world,
      secrets,
      values: this.values,
      state: this.#state,
      grants,
      answer: Object.hasOwn(answers, step.id) ? answers[step.id] : undefined,
      by,
      joined,
      isAlready: isSo,
      onCall: (call) => this.#alter(step, { call }),
      onTask: (task) => this.#alter(step, { task }),
    })
  }

  async #alter(step: PlanStep, change: Partial<StepState>): Promise<void> {
    await this.#note(step, { ...(this.#state.steps[step.id] ?? this.#begun(step)), ...change })
  }

  #hasMade(object: string): boolean {
    return this.#state.made.some((one) => one.object === object)
  }

  #begun({ digest }: PlanStep): StepState {
    return { result: 'begun', digest, began: this.#now(), tries: 0, evidence: this.attempt.id }
  }

  /** Undoes at the end what was only for the run, the last first. */
  async #tidyUp(): Promise<boolean> {
    for (const step of this.#options.plan.steps.toReversed()) {
      const state = this.#state.steps[step.id]
      if (!step.isScratch || state?.result !== 'proven' || state.isUndone === true) continue
      if (!(await this.#undo(step, state))) return false
      await this.#note(step, { ...state, isUndone: true })
    }
    return true
  }

  async #undo(step: PlanStep, before: StepState): Promise<boolean> {
    const { world, grants, secrets } = this.#options
    const object = this.#isUnnamed(step) ? undefined : this.#objectOf(step)
    try {
      await undoStep(step, object, { world, secrets, values: this.values, state: this.#state, grants })
      if (object !== undefined && (await exists(object, world))) throw new Fault('failed', `${object} is still there`)
      this.#state = { ...this.#state, made: this.#state.made.filter((one) => one.step !== step.id) }
      await world.save(this.#state)
      world.log(`${this.#now()} ${step.id} undone`)
      return true
    } catch (error) {
      if (world.signal.aborted) return false
      const found = world.hide(`undo: ${messageOf(error)}`).slice(0, 2_000)
      await this.#surprise(step, found)
      if (before.result !== 'proven')
        await this.#note(step, { ...before, result: 'failed', found, evidence: this.attempt.id })
      world.warn(`${step.id}: ${found}`)
      return false
    }
  }

  async #surprise(step: PlanStep, text: string): Promise<void> {
    const last = { ...this.attempt, surprises: [...this.attempt.surprises, { at: this.#now(), step: step.id, text }] }
    this.#state = { ...this.#state, attempts: [...this.#state.attempts.slice(0, -1), last] }
    await this.#options.world.save(this.#state)
    this.#options.world.log(`${this.#now()} ${step.id}: ${text}`)
  }

  async #note(step: PlanStep, state: StepState): Promise<void> {
    this.#state = { ...this.#state, steps: { ...this.#state.steps, [step.id]: state } }
    await this.#options.world.save(this.#state)
  }

  async #end(outcome: Outcome): Promise<void> {
    this.#state = endedWith(this.#state, outcome, this.#now())
    await this.#options.world.save(this.#state)
  }

  #now(): string {
    return isoOf(this.#options.world.clock.now())
  }
}

/** The node gives its object a name, which the step records. */
function namesItselfLater({ makes = '', id }: PlanStep): boolean {
  return namesIn(makes).names.some((name) => name.startsWith(`steps.${id}.`))
}
