/** The state an attempt of a plan begins with: a new run, or an unfinished one that goes on. */
import { Fault, invalid } from '#base/fault.ts'
import { productVersion } from '#base/product.ts'
import { digestOf, type Plan } from '#plans/plan.ts'
import type { Attempt, RunState } from '#plans/run-state.ts'
import { textOf } from '#plans/template.ts'
import { valuesFor } from '#plans/variable.ts'
import type { PlanDeps, RunPlan } from './run-plan.ts'

interface BeginFacts {
  readonly plan: Plan
  readonly params: RunPlan
  readonly deps: PlanDeps
  readonly attempt: Attempt
}

/** @throws Fault `conflict` when a run is unfinished, `missing` when none is, `invalid` for wrong variables */
export async function beginState(facts: BeginFacts): Promise<RunState> {
  const { plan, params, deps, attempt } = facts
  const open = await deps.plans.unfinished(plan.id)
  if (params.mode !== 'run') return goneOn(open, facts)
  if (open) {
    throw new Fault('conflict', `a run of ${plan.id} is not finished: ${open.run}`, {
      remedy: 'Go on with it (hako plan resume), or take back what it did (hako plan undo).',
    })
  }
  const values = Object.fromEntries(valuesFor(plan.settings.variables, params.values, Object.keys(params.secrets)))
  return {
    run: attempt.id,
    node: deps.settings.node,
    plan: aboutPlan(plan),
    starter: starterOf(attempt),
    where: params.where,
    version: productVersion,
    started: attempt.started,
    outcome: 'running',
    values,
    steps: {},
    made: [],
    attempts: [attempt],
  }
}

function goneOn(open: RunState | undefined, { plan, params, attempt }: BeginFacts): RunState {
  if (!open) {
    throw new Fault('missing', `no run of ${plan.id} is unfinished`, { remedy: 'Begin one with: hako plan run.' })
  }
  if (open.where !== params.where) {
    throw new Fault('conflict', `the run was begun with --in ${open.where}`, { remedy: 'Go on with it the same way.' })
  }
  const other = Object.entries(params.values).filter(([name, text]) => textOf(open.values[name] ?? '') !== text)
  if (other.length > 0) {
    throw invalid(Object.fromEntries(other.map(([name]) => [name, 'the run was begun with another value'])))
  }
  const missing = plan.settings.variables.filter(
    ({ type, name }) => type === 'secret' && params.secrets[name] === undefined,
  )
  if (missing.length > 0)
    throw invalid(Object.fromEntries(missing.map(({ name }) => [name, 'this secret is not given'])))
  const drift = driftOf(open, plan).map((text) => ({ at: attempt.started, text }))
  return {
    ...open,
    plan: aboutPlan(plan),
    outcome: 'running',
    version: productVersion,
    attempts: [...open.attempts, { ...attempt, surprises: drift }],
  }
}

function driftOf(open: RunState, plan: Plan): string[] {
  return [
    ...(open.plan.digest === aboutPlan(plan).digest ? [] : ['the document was changed since the run began']),
    ...(open.version === productVersion ? [] : [`begun with version ${open.version}, goes on with ${productVersion}`]),
  ]
}

function aboutPlan(plan: Plan): RunState['plan'] {
  const { id, slug, document } = plan
  return { id, slug, title: document.title.slice(0, 200), digest: digestOf(plan) }
}

function starterOf({ upid }: Attempt): string {
  return upid.split(':')[7] ?? ''
}
