/** Our own branch: plans that run again by themselves. */
import { array, boolean, integer, nothing, object, optional, string } from '#base/schema/schema.ts'
import type { Services } from '#services.ts'
import type { PlanJobOptions } from '#cluster/plan-jobs.ts'
import { demandLab } from '#operations/plans/lab.ts'
import { check } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'
import { planParams, type PlanParams, requestOf } from './plan-request.ts'

const jobId = string({ description: 'Name of the schedule.', format: 'pve-configid', maxLength: 50 })
const facts = {
  id: jobId,
  plan: string({ description: 'Identifier of the plan.' }),
  schedule: string({ description: 'When.' }),
  owner: string({ description: 'With whose rights.' }),
  file: optional(string({ description: 'Where the plan was read; the schedule has a copy.' })),
  'repeat-missed': boolean({ description: 'A run that was missed is made up for.' }),
  'next-run': optional(integer({ description: 'When it runs next, in seconds since 1970.' })),
  'last-task': optional(string({ description: 'Task of its last run.' })),
}
const params = {
  id: jobId,
  schedule: string({ description: 'When, as a calendar event.', format: 'pve-calendar-event', maxLength: 128 }),
  file: optional(
    string({ description: 'Where the plan was read, to be told from what it says later.', maxLength: 4096 }),
  ),
  'repeat-missed': optional(boolean({ description: 'Make up for a run that was missed, once.', default: false })),
  ...planParams,
}
const mayRead = check('Sys.Audit', '/')
const mayChange = check('Sys.Modify', '/')

export const planJobEndpoints = [
  endpoint({
    method: 'GET',
    path: '/hako/plan-jobs',
    description: 'Plans that run again by themselves in this lab.',
    params: {},
    permission: mayRead,
    returns: array(object(facts)),
    isOwn: true,
    async handle(_, { services }) {
      const zone = await services.machine.timeZone()
      return Promise.all((await services.planJobs.list()).map(({ id }) => factsOf(services, id, zone)))
    },
  }),
  endpoint({
    method: 'GET',
    path: '/hako/plan-jobs/{id}',
    description: 'One plan that runs again by itself, as it was when it was scheduled.',
    params: { id: jobId },
    permission: mayRead,
    returns: object({ ...facts, document: string({ description: 'The plan.' }) }),
    isOwn: true,
    async handle({ id }, { services }) {
      const { options } = await services.planJobs.job(id)
      return { ...(await factsOf(services, id, await services.machine.timeZone())), document: options.request.document }
    },
  }),
  endpoint({
    method: 'POST',
    path: '/hako/plan-jobs',
    description: 'Let a plan run again by itself in this lab, with the rights of the caller.',
    params,
    permission: mayChange,
    returns: nothing,
    isOwn: true,
    async handle({ id, ...given }, { services, who }) {
      await demandLab(services.settings, onlyInLab)
      await services.planJobs.create(id, optionsOf(given, who.authId))
      return null
    },
  }),
  endpoint({
    method: 'PUT',
    path: '/hako/plan-jobs/{id}',
    description: 'Run a plan at another time, or another version of it, with the rights of the caller.',
    params,
    permission: mayChange,
    returns: nothing,
    isOwn: true,
    async handle({ id, ...given }, { services, who }) {
      await demandLab(services.settings, onlyInLab)
      await services.planJobs.change(id, () => optionsOf(given, who.authId))
      return null
    },
  }),
  endpoint({
    method: 'DELETE',
    path: '/hako/plan-jobs/{id}',
    description: 'Let a plan no longer run by itself; its proofs stay.',
    params: { id: jobId },
    permission: mayChange,
    returns: nothing,
    isOwn: true,
    handle: ({ id }, { services }) => services.planJobs.delete(id).then(() => null),
  }),
] as const

const onlyInLab = { remedy: 'Schedule it where a lab is: hako lab.' }

interface Given extends PlanParams {
  readonly schedule: string
  readonly file?: string | undefined
  readonly 'repeat-missed'?: boolean | undefined
}

function optionsOf(
  { schedule, file, 'repeat-missed': repeats = false, ...plan }: Given,
  owner: string,
): PlanJobOptions {
  const at = file === undefined ? {} : { file }
  return { schedule, plan: plan.plan, owner, ...at, 'repeat-missed': repeats, request: requestOf(plan) }
}

async function factsOf({ planJobs }: Services, id: string, zone: string) {
  const job = await planJobs.job(id)
  const { upid } = await planJobs.runOf(id)
  const next = await planJobs.nextRun(job, zone)
  const { plan, schedule, owner, file, 'repeat-missed': repeats = false } = job.options
  return {
    id,
    plan,
    schedule,
    owner,
    'repeat-missed': repeats,
    ...(file === undefined ? {} : { file }),
    ...(next === undefined ? {} : { 'next-run': next }),
    ...(upid === undefined ? {} : { 'last-task': upid }),
  }
}
