/**
 * An operation is a long verb: ordered steps, each with its undo beside it.
 *
 * Invariants: a step's `begin` and `done` are in the journal before the next step starts; on failure the
 * undos of every step that began run in reverse. An undo looks at the world instead of trusting memory,
 * may run twice, and may run in another process than its `do`. Results of steps are JSON, because a
 * recovery reads them back from the journal.
 */
import type { Json } from '#store/store.ts'

/** What a step gets. `D` are the services the operation needs. */
export interface StepContext<P, D, Done> {
  readonly params: P
  readonly deps: D
  /** Results of earlier steps by step name. */
  readonly done: Done
  /** One line of the task log. */
  readonly log: (line: string) => void
  /** As `log`, and the task ends as `WARNINGS: n`. */
  readonly warn: (line: string) => void
  /**
   * Long work reports here; shown by the CLI, `tasks/{upid}/status`, and now and then the log. `fraction` is 0 to 1, of all
   * there is to do; `bytes` are those done within the phase.
   */
  readonly progress: (phase: string, fraction?: number, bytes?: number) => void
  /** Fires on abort. An undo gets a signal that never fires. */
  readonly signal: AbortSignal
  readonly task: TaskFacts
}

export interface TaskFacts {
  readonly upid: string
  /** Who started it: `root@pam` or `user@realm!token`. */
  readonly user: string
  readonly node: string
  /** Seconds since 1970. */
  readonly startTime: number
}

export interface Step<P, D, Done, Result> {
  readonly do: (context: StepContext<P, D, Done>) => Promise<Result> | Result
  /** Makes true that the step never happened. Absent where an earlier step's undo covers it. */
  readonly undo?: (context: StepContext<P, D, Partial<Done>>) => Promise<void> | void
  /** Runs after success as well as after failure: a drill removes what it made either way. */
  readonly always?: boolean
}

export interface NamedStep {
  readonly name: string
  // The context's type differs from step to step; `perform` hands each its own.
  readonly do: (context: StepContext<never, never, never>) => unknown
  readonly undo?: (context: StepContext<never, never, never>) => unknown
  readonly always: boolean
}

/** A result that survives the journal. */
export type StepResult = Json | undefined | void

export class Operation<P, D, Done extends object = object> {
  /** Task type in the UPID (`qmcreate`) unless `facts.upidType` says otherwise. Unique among operations. */
  readonly name: string
  readonly facts: OperationFacts<P>
  readonly steps: readonly NamedStep[]

  constructor(name: string, facts: OperationFacts<P>, steps: readonly NamedStep[] = []) {
    this.name = name
    this.facts = facts
    this.steps = steps
  }

  step<Name extends string, Result extends StepResult>(
    name: Name,
    step: Step<P, D, Done, Result>,
  ): Operation<P, D, Done & Record<Name, Awaited<Result>>> {
    if (this.steps.some((other) => other.name === name)) throw new Error(`${this.name} has two steps called '${name}'`)
    const named: NamedStep = {
      name,
      do: step.do as NamedStep['do'],
      ...(step.undo ? { undo: step.undo as NonNullable<NamedStep['undo']> } : {}),
      always: step.always ?? false,
    }
    return new Operation<P, D, Done & Record<Name, Awaited<Result>>>(this.name, this.facts, [...this.steps, named])
  }
}

export interface OperationFacts<P> {
  /** Type in the UPID when it is not the operation's name (several operations share `vzdump`). */
  readonly upidType?: string
  /** Id in the UPID, usually the vmid. No `:`, `/` or white space. */
  readonly id?: (params: P) => string | number
  /** Names of what nobody else may touch meanwhile, such as `guest/100`. Held from start to the end of undo. */
  readonly locks?: (params: P) => readonly string[]
  /** What is said of a run whose process died, where what it did stays: `hako plan resume goes on with it`. */
  readonly afterwards?: string
  /** Names of parameters never written to journal or log. They reach the worker through its standard input only. */
  readonly secrets?: readonly string[]
}

/** Starts the definition of an operation: `operation<Params, Deps>('qmcreate', { id: ({ vmid }) => vmid })`. */
export function operation<P, D>(name: string, facts: OperationFacts<P> = {}): Operation<P, D> {
  return new Operation<P, D>(name, facts)
}
