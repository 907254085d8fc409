/** Our own branch: runs of executable plans, and the proof they leave. */
import { array, boolean, enumOf, object, optional, record, refine, string } from '#base/schema/schema.ts'
import { upid } from '#base/schema/standard.ts'
import { runPlan } from '#operations/plans/run-plan.ts'
import { check } from '#rest/endpoint.ts'
import { planProof } from '#views/plan-proof.ts'
import { endpoint } from '../call.ts'
import { pairs, planId, planParams, requestOf } from './plan-request.ts'

const runId = string({
  description: 'Identifier of a run, or of the evidence of one of its attempts.',
  pattern: /[a-zA-Z0-9][a-zA-Z0-9-]{0,80}/,
  maxLength: 81,
})
const mayRead = check('Sys.Audit', '/')
const runFacts = object(
  {
    run: runId,
    outcome: string({ description: 'How it stands.' }),
    started: string({ description: 'When it began.' }),
  },
  { additionalProperties: true },
)

export const planEndpoints = [
  endpoint({
    method: 'GET',
    path: '/hako/plans',
    description: 'Runs of plans on this node, newest first.',
    params: { plan: optional(refine(planId, { description: 'Only those of this plan.' })) },
    permission: mayRead,
    returns: array(runFacts),
    isOwn: true,
    cli: {
      command: ['plan', 'runs'],
      columns: ['run', 'plan', 'outcome', 'where', 'starter', 'started'],
      id: 'run',
      examples: ['plan runs', 'plan runs --plan plans/first-restore.en.md -o json'],
    },
    handle: async ({ plan }, { services }) =>
      (await services.plans.list(plan)).map(({ run, plan: { id }, outcome, where, starter, started }) => ({
        run,
        plan: id,
        outcome,
        where,
        starter,
        started,
      })),
  }),
  endpoint({
    method: 'POST',
    path: '/hako/plans',
    description: 'Run a plan with the rights of the caller, go on with an unfinished run, or take back what one did.',
    params: {
      ...planParams,
      mode: optional(enumOf(['run', 'resume', 'undo'], { description: 'What to do.', default: 'run' })),
      in: optional(enumOf(['lab', 'live'], { description: 'What kind of node this is.', default: 'lab' })),
      secret: pairs('Values of secrets, each `name=value`.', true),
      'grant-destroy': optional(boolean({ description: 'Destroy on a live node, too.' })),
      answer: pairs('Answers to questions, each `step=answer`.'),
      decision: pairs('Decisions, each `step=skip|waive|continue: why`.'),
    },
    permission: mayRead,
    returns: upid,
    isOwn: true,
    handle: (params, { start }) => start(runPlan, requestOf(params)),
  }),
  endpoint({
    method: 'GET',
    path: '/hako/plans/{run}',
    description: 'One run of a plan: its steps, its attempts, what it made.',
    params: { run: runId },
    permission: mayRead,
    returns: record(),
    isOwn: true,
    handle: async ({ run }, { services }) => ({ ...(await services.plans.get(run)) }),
  }),
  endpoint({
    method: 'GET',
    path: '/hako/plans/{run}/proof',
    description: 'The signed record of an attempt of a plan, and whether it is as it was signed.',
    params: { run: runId },
    permission: mayRead,
    returns: record(),
    isOwn: true,
    handle: async ({ run }, { services }) => ({ ...(await planProof(services, run)) }),
  }),
] as const
