/**
 * How a plan stands: computed from its boxes and from evidence that verifies, never taken from what somebody wrote.
 *
 * A box is proven only when its mark names evidence of this node that holds, of the same plan, in which the step is
 * proven and was what it is now. Everything else that is ticked is claimed.
 */
import type { PlanItem } from './document.ts'
import type { Plan, PlanStep } from './plan.ts'
import type { PlanRecord } from './record.ts'
import type { RunState } from './run-state.ts'

export const planStatuses = ['draft', 'claimed', 'proven', 'stale', 'failed'] as const
export type PlanStatus = (typeof planStatuses)[number]
export type BoxStatus = 'open' | 'claimed' | 'proven' | 'stale' | 'failed' | 'skipped' | 'waived'

export interface BoxFacts {
  readonly line: number
  readonly words: string
  /** Of a box that can be run. */
  readonly step?: string
  readonly class?: PlanStep['class']
  readonly status: BoxStatus
  /** Why it is not proven, where that needs saying. */
  readonly why?: string
  readonly at?: string
  readonly evidence?: string
}

/** What is known of evidence a document names; absent where nobody could be asked. */
export type Proofs = ReadonlyMap<string, { readonly ok: boolean; readonly record?: PlanRecord | undefined }>

export interface StatusFacts {
  readonly proofs: Proofs
  /** Milliseconds since 1970. */
  readonly now: number
  /** Of Hakobune, as it runs now. */
  readonly version: string
  /** The newest run on the node, if there is one. */
  readonly latest?: RunState | undefined
}

export interface PlanStanding {
  readonly status: PlanStatus
  readonly boxes: readonly BoxFacts[]
}

const dayMs = 24 * 3600 * 1000

export function standingOf(plan: Plan, facts: StatusFacts): PlanStanding {
  const steps = new Map(plan.steps.map((step) => [step.item.start, step]))
  const items = (['constraints', 'steps', 'validation'] as const)
    .flatMap((key) => plan.document.sections.get(key)?.items ?? [])
    .filter((item) => item.box !== undefined || steps.has(item.start))
  const boxes = items.map((item) => boxOf(item, steps.get(item.start), plan, facts))
  return { status: statusOf(boxes, facts), boxes }
}

function boxOf(item: PlanItem, step: PlanStep | undefined, plan: Plan, facts: StatusFacts): BoxFacts {
  const { mark, box, line, words } = item
  const { latest } = facts
  const common = { line, words, ...(step ? { step: step.id, class: step.class } : {}) }
  const last = step && latest?.outcome === 'failed' ? latest.steps[step.id] : undefined
  if (last?.result === 'failed')
    return { ...common, status: 'failed', ...(last.found === undefined ? {} : { why: last.found }) }
  const isTicked = box?.isTicked === true || (!box && mark?.kind === 'proven')
  const asks = step && latest?.outcome === 'waiting' ? latest.steps[step.id] : undefined
  if (asks?.result === 'waiting') return { ...common, status: 'open', why: asks.found ?? '' }
  if (!mark) return { ...common, status: isTicked ? 'claimed' : 'open' }
  const marked = { ...common, at: mark.at, evidence: mark.evidence }
  if (mark.kind !== 'proven') {
    const why = whyNotProven(step, mark, plan, facts.proofs)
    return why === undefined
      ? { ...marked, status: mark.kind }
      : { ...marked, status: isTicked ? 'claimed' : 'open', why }
  }
  if (!isTicked) return { ...marked, status: 'open', why: 'somebody took the tick away' }
  const why = whyNotProven(step, mark, plan, facts.proofs)
  if (why !== undefined) return { ...marked, status: 'claimed', why }
  const old = whyStale(mark.evidence, plan, facts)
  return old === undefined ? { ...marked, status: 'proven' } : { ...marked, status: 'stale', why: old }
}

function whyNotProven(
  step: PlanStep | undefined,
  { evidence, kind }: { readonly evidence: string; readonly kind: string },
  plan: Plan,
  proofs: Proofs,
): string | undefined {
  if (!step) return 'nothing of it can be run'
  const proof = proofs.get(evidence)
  if (!proof) return `evidence ${evidence} cannot be looked at`
  if (!proof.ok || !proof.record) return `evidence ${evidence} is not as it was signed`
  if (proof.record.plan.id !== plan.id) return `evidence ${evidence} is of another plan`
  const shown = proof.record.steps.find(({ id }) => id === step.id)
  if (shown?.result !== kind) return `evidence ${evidence} does not show it`
  return shown.digest === step.digest ? undefined : 'the step was changed since'
}

function whyStale(evidence: string, plan: Plan, { proofs, now, version }: StatusFacts): string | undefined {
  const record = proofs.get(evidence)?.record
  if (!record) return undefined
  const days = Math.floor((now - Date.parse(record.ended)) / dayMs)
  if (days >= plan.settings.proofDays) return `proven ${days} days ago; it counts for ${plan.settings.proofDays}`
  return record.version === version ? undefined : `proven with version ${record.version}, this is ${version}`
}

function statusOf(boxes: readonly BoxFacts[], { latest }: StatusFacts): PlanStatus {
  const has = (...wanted: readonly BoxStatus[]) => boxes.some(({ status }) => wanted.includes(status))
  if (latest?.outcome === 'failed' || has('failed')) return 'failed'
  if (boxes.length === 0 || has('open')) return 'draft'
  if (has('claimed', 'skipped', 'waived')) return 'claimed'
  return has('stale') ? 'stale' : 'proven'
}
