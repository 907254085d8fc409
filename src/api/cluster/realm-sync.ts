/** `/cluster/jobs/realm-sync`: realms that are synchronized by themselves. */
import { Fault, invalid } from '#base/fault.ts'
import { splitList } from '#base/schema/formats.ts'
import { array, boolean, nothing, optional, record, string } from '#base/schema/schema.ts'
import { directoryOf } from '#access/realms/directory.ts'
import { syncOptions } from '#access/realm-sync.ts'
import type { Job, JobOptions } from '#cluster/scheduled-jobs.ts'
import { all, check } from '#rest/endpoint.ts'
import { syncParams } from '../access/domains.ts'
import { type Call, endpoint } from '../call.ts'
import { lastRun } from './last-run.ts'

const id = string({ description: 'Name of the job.', format: 'pve-configid', maxLength: 64 })
const realm = string({ description: 'Realm to synchronize.', format: 'pve-realm', maxLength: 32 })
const mayAudit = check('Sys.Audit', '/')
const mayFill = check('User.Modify', '/access/groups')
const facts = {
  schedule: string({
    description: 'When it runs, as a calendar event: `mon..fri 02:30`.',
    format: 'pve-calendar-event',
    maxLength: 128,
  }),
  enabled: optional(boolean({ description: 'It runs by itself.', default: true })),
  comment: optional(string({ description: 'Note for people.', maxLength: 512 })),
  ...syncParams,
}

const jobReply = record({
  description:
    'The job as it was configured, with `id`, `next-run`, and of the run before `last-run` and `last-result`: `OK`, `WARNINGS: n`, `RUNNING` or the error.',
})

export const realmSyncEndpoints = [
  endpoint({
    method: 'GET',
    path: '/cluster/jobs/realm-sync',
    description: 'Jobs that synchronize realms.',
    params: {},
    permission: mayAudit,
    returns: array(jobReply),
    cli: {
      command: ['realm', 'job', 'list'],
      columns: ['id', 'realm', 'enabled', 'schedule', 'next-run', 'last-run', 'last-result', 'comment'],
      id: 'id',
    },
    async handle(_, { services }) {
      return Promise.all((await services.realmSyncJobs.list()).map((job) => shown(job, services)))
    },
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/jobs/realm-sync/{id}',
    description: 'A job that synchronizes a realm.',
    params: { id },
    permission: mayAudit,
    returns: jobReply,
    cli: { command: ['realm', 'job', 'show'], positional: ['id'] },
    handle: async ({ id: name }, { services }) => shown(await services.realmSyncJobs.get(name), services),
  }),
  endpoint({
    method: 'POST',
    path: '/cluster/jobs/realm-sync/{id}',
    description: 'Create a job that synchronizes a realm.',
    params: { id, realm: optional(realm), ...facts },
    permission: all(check('Realm.AllocateUser', '/access/realm/{realm}'), mayFill),
    returns: nothing,
    cli: {
      command: ['realm', 'job', 'create'],
      positional: ['id'],
      examples: ["realm job create nightly --realm office --schedule '02:30' --scope both"],
    },
    async handle({ id: name, ...options }, { services }) {
      await requireSyncable(options, services)
      await services.realmSyncJobs.create(name, given(options))
      return null
    },
  }),
  endpoint({
    method: 'PUT',
    path: '/cluster/jobs/realm-sync/{id}',
    description: 'Change a job that synchronizes a realm; also needs Realm.AllocateUser on that realm.',
    params: {
      id,
      ...facts,
      delete: optional(
        string({ description: 'Options to return to their default.', format: 'pve-configid-list', maxLength: 4096 }),
      ),
    },
    permission: mayFill,
    returns: nothing,
    cli: { command: ['realm', 'job', 'set'], positional: ['id'] },
    handle: change,
  }),
  endpoint({
    method: 'DELETE',
    path: '/cluster/jobs/realm-sync/{id}',
    description: 'Delete a job that synchronizes a realm.',
    params: { id },
    permission: check('Sys.Modify', '/'),
    returns: nothing,
    cli: { command: ['realm', 'job', 'delete'], positional: ['id'] },
    handle: ({ id: name }, { services }) => services.realmSyncJobs.delete(name).then(() => null),
  }),
]

async function change({ id, delete: list, ...set }: JobOptions, { services, may }: Call): Promise<null> {
  const name = String(id)
  const remove = splitList(typeof list === 'string' ? list : '')
  const unknown = remove.find((option) => option === 'schedule' || !Object.hasOwn(facts, option))
  if (unknown !== undefined) throw invalid({ delete: `'${unknown}' is no option that can be deleted` })
  const { options } = await services.realmSyncJobs.get(name)
  const path = `/access/realm/${String(options.realm)}`
  if (!(await may(path, 'Realm.AllocateUser'))) {
    throw new Fault('denied', `Permission check failed (${path}, Realm.AllocateUser)`)
  }
  const changed = (before: JobOptions): JobOptions => {
    const kept = Object.entries(before).filter(([option]) => !remove.includes(option))
    return { ...Object.fromEntries(kept), ...given(set) }
  }
  await requireSyncable(changed(options), services)
  await services.realmSyncJobs.change(name, changed)
  return null
}

/** What the job will do is judged now, not in the night. */
async function requireSyncable({ realm: name, ...wish }: JobOptions, { realms }: Call['services']): Promise<void> {
  if (typeof name !== 'string') throw invalid({ realm: 'property is missing and it is not optional' })
  const { type, options } = await realms.get(name)
  directoryOf({ type, options }, undefined)
  syncOptions(wish, options['sync-defaults-options'])
}

function given(options: JobOptions): JobOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
}

/** The reply is a record, so nobody turns truths into numbers after us. */
async function shown(job: Job, services: Call['services']): Promise<Record<string, unknown>> {
  const { realmSyncJobs, machine } = services
  const next = await realmSyncJobs.nextRun(job, await machine.timeZone())
  const { upid } = await realmSyncJobs.runOf(job.id)
  const options = Object.entries({ enabled: true, ...job.options }).map(([name, value]) => [
    name,
    typeof value === 'boolean' ? Number(value) : value,
  ])
  return {
    ...Object.fromEntries(options),
    id: job.id,
    ...(next === undefined ? {} : { 'next-run': next }),
    ...(await lastRun(upid, services)),
  }
}
