/**
 * A run of a plan, or one attempt of it: what the document says is done through the API with the rights of whoever
 * started the task, and what was found is signed as a drill's evidence is.
 *
 * Unlike other operations it does not undo what it did when it is interrupted: the run goes on with the next attempt,
 * and says itself how each of its steps is undone. What is undone here is only that nobody knows how it ended: the
 * evidence of an attempt that died is written by the process that looks after it.
 */
import { stat } from 'node:fs/promises'
import { Fault, invalid } from '#base/fault.ts'
import { documentOf } from '#plans/document.ts'
import { type Plan, planOf, slugOf } from '#plans/plan.ts'
import { demandGrants, type Grants } from '#plans/grant.ts'
import { type PlanRecord, recordOf } from '#plans/record.ts'
import { PlanRun, type RunOptions } from '#plans/run.ts'
import { type Attempt, type Decision, endedWith, isoOf, type RunState } from '#plans/run-state.ts'
import { filledText, type Values } from '#plans/template.ts'
import type { Value } from '#plans/yaml.ts'
import type { Services } from '#services.ts'
import { labMark } from '#settings.ts'
import { TaskArchive } from '#tasks/archive.ts'
import { operation, type StepContext, type TaskFacts } from '#tasks/operation.ts'
import { redactorFor } from '#tasks/secrets.ts'
import { asUpid, parseUpid } from '#tasks/upid.ts'
import { beginState } from './begin.ts'

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

export const runPlan = operation<RunPlan, PlanDeps>('hakoplan', {
  // Not from the document: that is read in the task's own process, and nowhere else.
  id: ({ plan }) => slugOf(plan),
  locks: ({ plan }) => [`plan/${slugOf(plan)}`],
  secrets: ['secrets'],
})
  .step('begin', {
    async do({ params, deps, task }) {
      const plan = usable(params.document)
      if (plan.id !== params.plan) throw invalid({ plan: `the document is of '${plan.id}'` })
      await demandLab(params, deps)
      const state = await beginState({ plan, params, deps, attempt: newAttempt(plan, params, deps, task) })
      const values = knownValues(state, deps)
      const decided = new Set(params.decisions.map(({ step }) => step))
      const steps = params.mode === 'undo' ? [] : plan.steps.filter(({ id }) => !decided.has(id))
      await demandGrants(steps, { state, values, grants: grantsOf(plan, params, values) })
      await deps.plans.save(state)
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
      const { params, deps, done } = context
      const run = new PlanRun(await deps.plans.get(done.begin.run), await optionsOf(context))
      await (params.mode === 'undo' ? run.undo() : run.perform())
      return { outcome: run.state.outcome }
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
      if (outcome === 'failed') throw new Fault('unproven', quote)
      if (outcome === 'interrupted') throw new Fault('unavailable', quote, { remedy: 'Go on with: hako plan resume.' })
    },
  })

/** @throws Fault `invalid` with every line that cannot be run */
function usable(text: string): Plan {
  const plan = planOf(documentOf(text))
  const wrong = plan.complaints.slice(0, 20).map(({ line, text: what }) => [`line ${line}`, what])
  if (plan.slug === '') wrong.push(['Metadata', 'the plan has no Plan ID'])
  const ids = plan.steps.map(({ id }) => id)
  const twice = ids.find((id, at) => ids.indexOf(id) < at)
  if (twice !== undefined) wrong.push([twice, 'two steps have this id'])
  if (plan.steps.length === 0) wrong.push(['steps', 'the plan has no step that can be run'])
  if (wrong.length > 0) {
    throw new Fault('invalid', 'the plan cannot be run as it is', {
      fields: Object.fromEntries(wrong),
      remedy: 'See everything that is wrong with it: hako plan lint.',
    })
  }
  return plan
}

async function demandLab({ where }: RunPlan, { settings }: PlanDeps): Promise<void> {
  if (where === 'live' || (await isLab(settings))) return
  throw new Fault('denied', 'this node is no lab', { remedy: 'Say that it is meant: --in live.' })
}

async function isLab(settings: PlanDeps['settings']): Promise<boolean> {
  return stat(labMark(settings)).then(
    () => true,
    () => false,
  )
}

function newAttempt(plan: Plan, params: RunPlan, { clock }: PlanDeps, task: TaskFacts): Attempt {
  const started = isoOf(clock.now())
  const decisions = params.decisions.map((one) => ({ ...one, at: started, by: task.user }))
  const stamp = started.replaceAll(/[-:]/g, '')
  const id = `${stamp}-plan-${plan.slug}-${parseUpid(task.upid).pid}`
  return { id, upid: task.upid, started, outcome: 'running', surprises: [], decisions }
}

async function optionsOf({
  params,
  deps,
  done,
  task,
  log,
  warn,
  progress,
  signal,
}: StepContext<RunPlan, PlanDeps, { readonly begin: { readonly run: string } }>): Promise<RunOptions> {
  const plan = usable(params.document)
  const state = await deps.plans.get(done.begin.run)
  const archive = new TaskArchive(deps.settings.stateDir)
  const hide = redactorFor(params.secrets, Object.keys(params.secrets)).text
  return {
    plan,
    secrets: new Map(Object.entries(params.secrets)),
    answers: params.answers,
    decisions: state.attempts.at(-1)?.decisions ?? [],
    grants: grantsOf(plan, params, knownValues(state, deps)),
    earlier: earlierOf(await deps.plans.list(plan.id)),
    isProven: (evidence) => isProven(deps, evidence),
    world: {
      ...(await deps.apiOf(task.upid, signal)),
      clock: deps.clock,
      node: deps.settings.node,
      startedBy: async (upid) => archive.startedBy(asUpid(upid)),
      save: (next) => deps.plans.save(next),
      log: (line) => log(hide(line)),
      warn: (line) => warn(hide(line)),
      progress,
      hide,
      signal,
    },
  }
}

/** By name, before any step has recorded anything. */
function knownValues(state: RunState, { settings }: PlanDeps): Map<string, Value> {
  return new Map<string, Value>([['node', settings.node], ['run', state.run], ...Object.entries(state.values)])
}

function grantsOf({ settings }: Plan, { confirmed, mayDestroyLive }: RunPlan, values: Values): Grants {
  return { confirmed, mayDestroyLive, scope: settings.scope.map((name) => filledText(name, values)) }
}

const remembered = 5

function earlierOf(runs: readonly RunState[]): Map<string, number[]> {
  const times = new Map<string, number[]>()
  for (const { steps } of runs.filter(({ outcome }) => outcome === 'proven').slice(0, remembered)) {
    for (const [id, { tookMs }] of Object.entries(steps)) {
      if (tookMs !== undefined) times.set(id, [...(times.get(id) ?? []), tookMs])
    }
  }
  return times
}

async function isProven({ recovery }: PlanDeps, evidence: string): Promise<boolean> {
  return recovery.verify(evidence).then(
    ({ ok }) => ok,
    () => false,
  )
}

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
