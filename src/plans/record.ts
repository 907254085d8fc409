/** The record of one attempt of a plan: what its evidence vouches for. */
import { type Attempt, type Outcome, type RunState, type StepState } from './run-state.ts'

export interface PlanRecord {
  /** Also the name of the evidence. */
  readonly id: string
  readonly kind: 'plan'
  readonly node: string
  readonly upid: string
  readonly run: string
  readonly plan: RunState['plan']
  readonly starter: string
  readonly where: RunState['where']
  /** Of Hakobune. */
  readonly version: string
  readonly started: string
  readonly ended: string
  readonly outcome: Outcome
  readonly values: RunState['values']
  /** Those done in this attempt, in order. */
  readonly steps: readonly (StepState & { readonly id: string })[]
  readonly surprises: Attempt['surprises']
  readonly decisions: Attempt['decisions']
  readonly proven: boolean
  readonly quote: string
}

/** @throws Error when the run has no such attempt */
export function recordOf(state: RunState, attemptId: string): PlanRecord {
  const attempt = state.attempts.find(({ id }) => id === attemptId)
  if (!attempt?.ended) throw new Error(`attempt '${attemptId}' has no end to be recorded`)
  const steps = Object.entries(state.steps)
    .filter(([, { evidence }]) => evidence === attemptId)
    .map(([id, step]) => ({ id, ...step }))
  const { run, node, plan, starter, where, version, values } = state
  const { id, upid, started, ended, outcome, surprises, decisions } = attempt
  const facts = { id, kind: 'plan', node, upid, run, plan, starter, where, version, started, ended, outcome } as const
  const proven = outcome === 'proven'
  return { ...facts, values, steps, surprises, decisions, proven, quote: quoteOf(state, outcome) }
}

/** The line a person can quote. */
export function quoteOf({ plan, steps }: Pick<RunState, 'plan' | 'steps'>, outcome: Outcome): string {
  const all = Object.entries(steps)
  const proven = all.filter(([, { result }]) => result === 'proven').length
  const failed = all.find(([, { result }]) => result === 'failed')
  switch (outcome) {
    case 'proven':
      return `Plan ${plan.id} proven: ${proven} steps`
    case 'failed':
      return `Plan ${plan.id} failed at '${failed?.[0] ?? ''}': ${failed?.[1].found ?? ''}`
    case 'waiting':
      return `Plan ${plan.id} waits for an answer; ${proven} steps proven`
    case 'decided':
      return `Plan ${plan.id} came to its end with ${all.length - proven} steps skipped or waived; ${proven} proven`
    case 'undone':
      return `Plan ${plan.id} undone`
    case 'interrupted':
    case 'running':
      return `Plan ${plan.id} interrupted; ${proven} steps proven`
    default:
      return outcome satisfies never
  }
}
