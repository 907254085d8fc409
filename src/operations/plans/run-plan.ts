/**
 * A run of a plan, or one attempt of it: what the document says is done through the API with the rights of whoever
 * started the task, and what was found is signed as a drill's evidence is.
 *
 * Unlike other operations it does not undo what it did when it is interrupted: the run goes on with the next attempt,
 * and says itself how each of its steps is undone. What is undone here is only that nobody knows how it ended: the
 * evidence of an attempt that died is written by the process that looks after it.
 */
import { Fault } from '#base/fault.ts'
import { type PlanRecord, recordOf } from '#plans/record.ts'
import { type Decision, endedWith, isoOf, type RunState } from '#plans/run-state.ts'
import { slugOf } from '#plans/slug.ts'
import type { Services } from '#services.ts'
import { operation } from '#tasks/operation.ts'

export type RunPlan = {
  /** `run` begins anew, `resume` goes on with what is unfinished, `undo` takes back what an unfinished run did. */
  readonly mode: 'run' | 'resume' | 'undo'
  /** Id of the plan, as the document names it. */
  readonly plan: string
  readonly document: string
  readonly values: Readonly<Record<string, string>>
  /** By name; never written down. */
  readonly secrets: Readonly<Record<string, string>>
  readonly where: 'lab' | 'live'
  readonly confirmed: readonly string[]
  readonly mayDestroyLive: boolean
  readonly answers: Readonly<Record<string, string>>
  readonly decisions: readonly Pick<Decision, 'kind' | 'step' | 'reason'>[]
}

export type PlanDeps = Pick<Services, 'settings' | 'clock' | 'store' | 'recovery' | 'plans' | 'apiOf'>

/** Loaded when a plan is run: every task reads this file, and what reads Markdown takes longer than most tasks. */
const performing = () => import('./perform-plan.ts')

export const runPlan = operation<RunPlan, PlanDeps>('hakoplan', {
  // Not from the document: that is read in the task's own process, and nowhere else.
  id: ({ plan }) => slugOf(plan),
  locks: ({ plan }) => [`plan/${slugOf(plan)}`],
  secrets: ['secrets'],
  afterwards: 'what is done stays done, and hako plan resume goes on',
})
  .step('begin', {
    async do({ params, deps, task }) {
      const state = await (await performing()).begin(params, deps, task)
      return { run: state.run, attempt: state.attempts.at(-1)?.id ?? '' }
    },
    async undo({ deps, task, params }) {
      const [state] = (await deps.plans.list()).filter(({ attempts }) =>
        attempts.some(({ upid }) => upid === task.upid),
      )
      const attempt = state?.attempts.find(({ upid }) => upid === task.upid)
      if (!state || !attempt) return
      await deps.recovery.discardUnfinished(attempt.id)
      const ended = attempt.ended === undefined ? endedWith(state, 'interrupted', isoOf(deps.clock.now())) : state
      await deps.plans.save(ended)
      await seal(deps, ended, attempt.id, params.document)
    },
  })
  .step('perform', {
    async do(context) {
      return { outcome: await (await performing()).goOn(context) }
    },
  })
  .step('evidence', {
    async do({ params, deps, done, log }) {
      const record = await seal(deps, await deps.plans.get(done.begin.run), done.begin.attempt, params.document)
      await deps.plans.prune()
      log(record.quote)
      log(`evidence: ${record.id}`)
      return { quote: record.quote, outcome: record.outcome }
    },
  })
  .step('verdict', {
    do({ done }) {
      const { outcome, quote } = done.evidence
      if (outcome === 'failed') {
        throw new Fault('unproven', quote, {
          remedy:
            'Mend what is wrong and go on: hako plan resume. Or leave the step out (--skip STEP --reason TEXT), or take back what was done: hako plan undo.',
        })
      }
      if (outcome === 'interrupted') throw new Fault('unavailable', quote, { remedy: 'Go on with: hako plan resume.' })
    },
  })

/** Signs what an attempt did; one that is signed already stays as it is. */
async function seal({ recovery }: PlanDeps, state: RunState, attempt: string, document: string): Promise<PlanRecord> {
  const record = recordOf(state, attempt)
  const isSealed = await recovery.record(attempt).then(
    () => true,
    () => false,
  )
  if (!isSealed) await recovery.keep(record, new Map([['document.md', document]]))
  return record
}
