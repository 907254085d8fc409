/** What a run needs of the world: calls of the API as its starter, and a place to keep its state. */
import type { Clock } from '#base/clock.ts'
import type { RunState } from './run-state.ts'
import type { ApiAct, ValueMap } from './step.ts'
import type { Value } from './value.ts'

export interface Call {
  readonly method: ApiAct['method']
  /** Percent-encoded. */
  readonly path: string
  readonly params: ValueMap
}

/** A `hako` command as the call it is. */
export interface ResolvedCommand {
  readonly call: Call
  /** What comes of its reply: that of a program that goes on in a guest, for instance. */
  readonly finish: (reply: Value, signal: AbortSignal) => Promise<Value>
}

/** The API of a task's own node, with the rights of whoever started the task. */
export interface ApiCaller {
  /** `data` of a call. @throws Fault */
  readonly call: (call: Call, signal: AbortSignal) => Promise<Value>
  /** @throws Fault `invalid` for words that are no command of the node */
  readonly command: (words: readonly string[]) => Promise<ResolvedCommand>
}

export type ApiOfTask = (upid: string, signal: AbortSignal) => Promise<ApiCaller>

export interface PlanWorld extends ApiCaller {
  readonly clock: Clock
  readonly node: string
  /** Tasks an earlier attempt started, the newest first. */
  readonly startedBy: (upid: string) => Promise<readonly string[]>
  /** Returns when it survives a crash. */
  readonly save: (state: RunState) => Promise<void>
  readonly log: (line: string) => void
  readonly warn: (line: string) => void
  readonly progress: (phase: string, fraction?: number) => void
  /** Takes secrets out of a text. */
  readonly hide: (text: string) => string
  readonly signal: AbortSignal
}
