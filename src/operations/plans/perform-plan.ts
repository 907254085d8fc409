/** What a run of a plan does inside its task: reads the document, begins or goes on, step by step. */
import { Fault, invalid } from '#base/fault.ts'
import { documentOf } from '#plans/document.ts'
import { demandGrants, type Grants } from '#plans/grant.ts'
import { type Plan, planOf } from '#plans/plan.ts'
import { PlanRun, type RunOptions } from '#plans/run.ts'
import { type Attempt, isoOf, type Outcome, type RunState } from '#plans/run-state.ts'
import { filledText, type Values } from '#plans/template.ts'
import type { Value } from '#plans/value.ts'
import { TaskArchive } from '#tasks/archive.ts'
import type { StepContext, TaskFacts } from '#tasks/operation.ts'
import { redactorFor } from '#tasks/secrets.ts'
import { asUpid, parseUpid } from '#tasks/upid.ts'
import { beginState } from './begin.ts'
import { demandLab } from './lab.ts'
import type { PlanDeps, RunPlan } from './run-plan.ts'

/** @returns the state with its new attempt, saved. @throws Fault before anything was done */
export async function begin(params: RunPlan, deps: PlanDeps, task: TaskFacts): Promise<RunState> {
  const plan = usable(params.document)
  if (plan.id !== params.plan) throw invalid({ plan: `the document is of '${plan.id}'` })
  if (params.where === 'lab') await demandLab(deps.settings, { remedy: 'Say that it is meant: --in live.' })
  demandMeant(plan, params)
  const state = await beginState({ plan, params, deps, attempt: newAttempt(plan, params, deps, task) })
  const values = knownValues(state, deps)
  const decided = new Set(params.decisions.map(({ step }) => step))
  const steps = params.mode === 'undo' ? [] : plan.steps.filter(({ id }) => !decided.has(id))
  await demandGrants(steps, { state, values, grants: grantsOf(plan, params, values) })
  await deps.plans.save(state)
  return state
}

type PerformContext = StepContext<RunPlan, PlanDeps, { readonly begin: { readonly run: string } }>

/** Goes on until the end, or until something stops it. */
export async function goOn(context: PerformContext): Promise<Outcome> {
  const { params, deps, done } = context
  const run = new PlanRun(await deps.plans.get(done.begin.run), await optionsOf(context))
  await (params.mode === 'undo' ? run.undo() : run.perform())
  return run.state.outcome
}

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

/** @throws Fault `invalid` for a decision or an answer that no step waits for, ever */
function demandMeant(plan: Plan, { decisions, answers }: RunPlan): void {
  const known = (id: string) => plan.steps.find((step) => step.id === id)
  const unknown = (id: string) => `the plan has no step '${id}': ${plan.steps.map((step) => step.id).join(', ')}`
  const wrong: Record<string, string> = {}
  for (const { step } of decisions) if (!known(step)) wrong.decision = unknown(step)
  for (const [id, answer] of Object.entries(answers)) {
    const { act } = known(id) ?? {}
    if (!act) wrong.answer = unknown(id)
    else if (act.kind !== 'ask') wrong.answer = `step '${id}' asks nothing`
    else if (act.choices?.includes(answer) === false)
      wrong.answer = `'${answer}' is no answer to step '${id}': ${act.choices.join(', ')}`
  }
  if (Object.keys(wrong).length > 0) throw invalid(wrong)
}

function newAttempt(plan: Plan, params: RunPlan, { clock }: PlanDeps, task: TaskFacts): Attempt {
  const started = isoOf(clock.now())
  const decisions = params.decisions.map((one) => ({ ...one, at: started, by: task.user }))
  // As the UPID has it: a process may do two attempts within a second, and no two tasks have one name.
  const stamp = isoOf(task.startTime * 1000).replaceAll(/[-:]/g, '')
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
}: PerformContext): Promise<RunOptions> {
  const plan = usable(params.document)
  const state = await deps.plans.get(done.begin.run)
  const archive = new TaskArchive(deps.settings.stateDir)
  const hide = redactorFor(params.secrets, Object.keys(params.secrets)).text
  return {
    plan,
    secrets: new Map(Object.entries(params.secrets)),
    by: task.user,
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
