/**
 * Runs plans again when they are due, with the rights of whoever scheduled them, and in a lab alone. A run that is not
 * finished is gone on with, so that what it made is not made twice; one that goes on at the moment, or that waits for a
 * person, is left alone until the next time.
 */
import { type RunPlan, runPlan } from '#operations/plans/run-plan.ts'
import { slugOf } from '#plans/slug.ts'
import type { NodeServices } from '#services.ts'
import type { Json } from '#store/store.ts'
import { type DueDeps, type JobKind, keepRunning, runDue } from './due-jobs.ts'

export type PlanJobDeps = DueDeps & Pick<NodeServices, 'planJobs' | 'plans'>

export function runPlanJobs(deps: PlanJobDeps, signal: AbortSignal): void {
  keepRunning(deps, kindOf(deps), signal)
}

/** Starts what is due now; returns the tasks. */
export async function runDuePlans(deps: PlanJobDeps): Promise<string[]> {
  return runDue(deps, kindOf(deps))
}

function kindOf({ log, tasks, planJobs: jobs, plans }: PlanJobDeps): JobKind {
  return {
    noun: 'plan',
    jobs,
    async start({ id, options }) {
      // Written by the endpoint, from parameters that were checked.
      const { owner, request } = options as { readonly owner: string; readonly request: RunPlan }
      const isRunning = tasks.active().some((task) => task.type === runPlan.name && task.id === slugOf(request.plan))
      const unfinished = await plans.unfinished(request.plan)
      if (isRunning || unfinished?.outcome === 'waiting') {
        const why = isRunning ? 'it runs already' : 'it waits for an answer or a decision'
        log.info('a scheduled plan is left alone this time', { job: id, plan: request.plan, why })
        return undefined
      }
      const wish: RunPlan = { ...request, mode: unfinished ? 'resume' : 'run', where: 'lab' }
      const params: Json = JSON.parse(JSON.stringify(wish))
      return tasks.start({ operation: runPlan.name, params, user: owner })
    },
  }
}
