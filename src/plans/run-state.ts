/**
 * What is known of a run, kept on the node after every event: which steps are done, what they recorded, what was made.
 *
 * A run may take several attempts, each a task with evidence of its own: it is interrupted, waits for an answer, or
 * fails and goes on when somebody has mended what was wrong. The state says where to go on; what is proven is said by
 * the evidence alone, which is signed.
 */
import type { Value } from './value.ts'

export const outcomes = ['running', 'proven', 'failed', 'waiting', 'interrupted', 'undone', 'decided'] as const
/** `decided`: it came to its end, but with steps that were skipped or waived; so not all is proven. */
export type Outcome = (typeof outcomes)[number]

export type StepResult = 'begun' | 'proven' | 'failed' | 'skipped' | 'waived' | 'waiting' | 'undone'

export interface StepState {
  readonly result: StepResult
  /** Of the step as it was then. */
  readonly digest: string
  /** ISO times. */
  readonly began: string
  readonly ended?: string
  readonly tookMs?: number
  /** How often it was tried. */
  readonly tries: number
  /** What was called, without secrets. */
  readonly call?: string
  /** What was found, in a sentence. */
  readonly found?: string
  /** Why it was skipped or waived. */
  readonly reason?: string
  /** Who answered what it asks. */
  readonly by?: string
  readonly recorded?: Readonly<Record<string, Value>>
  /** Task it started. */
  readonly task?: string
  /** Evidence of the attempt it was done in. */
  readonly evidence: string
  /** What it made was only for the run, and is gone. */
  readonly isUndone?: boolean
}

export interface Attempt {
  /** Also the name of its evidence. */
  readonly id: string
  readonly upid: string
  readonly started: string
  readonly ended?: string
  readonly outcome: Outcome
  readonly surprises: readonly { readonly at: string; readonly step?: string; readonly text: string }[]
  readonly decisions: readonly Decision[]
}

export const decisionKinds = ['skip', 'waive', 'continue'] as const
export type DecisionKind = (typeof decisionKinds)[number]

export interface Decision {
  readonly at: string
  readonly kind: DecisionKind
  readonly step: string
  readonly reason: string
  readonly by: string
}

export interface RunState {
  readonly run: string
  readonly node: string
  readonly plan: { readonly id: string; readonly slug: string; readonly title: string; readonly digest: string }
  readonly starter: string
  readonly where: 'lab' | 'live'
  readonly version: string
  readonly started: string
  readonly outcome: Outcome
  /** Variables without secrets. */
  readonly values: Readonly<Record<string, Value>>
  readonly steps: Readonly<Record<string, StepState>>
  /** Objects the run made and has not removed, or was about to make. */
  readonly made: readonly { readonly object: string; readonly step: string }[]
  readonly attempts: readonly Attempt[]
}

/** Whether a run came to an end that nothing follows. */
export function isOver({ outcome }: Pick<RunState, 'outcome'>): boolean {
  return outcome === 'proven' || outcome === 'undone' || outcome === 'decided'
}

/** ISO time to the second. */
export function isoOf(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z')
}

/** The state when its last attempt has ended. */
export function endedWith(state: RunState, outcome: Outcome, now: string): RunState {
  const last = state.attempts.at(-1)
  if (!last) return state
  return { ...state, outcome, attempts: [...state.attempts.slice(0, -1), { ...last, ended: now, outcome }] }
}
