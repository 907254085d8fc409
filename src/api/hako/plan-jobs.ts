/** Our own branch: plans that run again by themselves. */
import { array, nothing, object, string } from '#base/schema/schema.ts'
import { check } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'
import { planParams, requestOf } from './plan-request.ts'

const jobId = string({ description: 'Name of the schedule.', format: 'pve-configid', maxLength: 50 })

export const planJobEndpoints = [
  endpoint({
    method: 'GET',
    path: '/hako/plan-jobs',
    description: 'Plans that run again by themselves in this lab.',
    params: {},
    permission: check('Sys.Audit', '/'),
    returns: array(object({ id: jobId }, { additionalProperties: true })),
    isOwn: true,
    cli: {
      command: ['plan', 'schedules'],
      columns: ['id', 'plan', 'schedule', 'next-run', 'owner'],
      id: 'id',
      examples: ['plan schedules'],
    },
    async handle(_, { services }) {
      const zone = await services.machine.timeZone()
      return Promise.all(
        (await services.planJobs.list()).map(async (job) => {
          const next = await services.planJobs.nextRun(job, zone)
          const { plan, schedule, owner } = job.options
          return { id: job.id, plan, schedule, owner, ...(next === undefined ? {} : { 'next-run': next }) }
        }),
      )
    },
  }),
  endpoint({
    method: 'POST',
    path: '/hako/plan-jobs',
    description: 'Let a plan run again by itself in this lab, with the rights of the caller.',
    params: {
      id: jobId,
      schedule: string({ description: 'When, as a calendar event.', format: 'pve-calendar-event', maxLength: 128 }),
      ...planParams,
    },
    permission: check('Sys.Modify', '/'),
    returns: nothing,
    isOwn: true,
    async handle({ id, schedule, ...params }, { services, who }) {
      const request = requestOf(params)
      await services.planJobs.create(id, { schedule, plan: params.plan, owner: who.authId, request })
      return null
    },
  }),
  endpoint({
    method: 'DELETE',
    path: '/hako/plan-jobs/{id}',
    description: 'Let a plan no longer run by itself; its proofs stay.',
    params: { id: jobId },
    permission: check('Sys.Modify', '/'),
    returns: nothing,
    isOwn: true,
    cli: { command: ['plan', 'unschedule'], positional: ['id'], examples: ['plan unschedule monthly'] },
    handle: ({ id }, { services }) => services.planJobs.delete(id).then(() => null),
  }),
] as const
