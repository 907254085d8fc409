/** `/cluster/backup` and `/cluster/backup-info`: what is backed up by itself. */
import { Fault, invalid } from '#base/fault.ts'
import { splitList } from '#base/schema/formats.ts'
import { readPropertyString } from '#base/schema/property-string.ts'
import { array, boolean, enumOf, integer, nothing, object, optional, record, string } from '#base/schema/schema.ts'
import { vmid as vmidSchema } from '#base/schema/standard.ts'
import type { BackupJob, JobOptions } from '#cluster/backup-jobs.ts'
import { isEnabled } from '#cluster/backup-jobs.ts'
import { coveredBy, includedVolumes, requireRunnable, scheduleOf } from '#operations/backup/job.ts'
import { check, rootOnly } from '#rest/endpoint.ts'
import { type Call, endpoint } from '../call.ts'
import { asProperties, jobParams, withoutEffect } from './backup-params.ts'
import { lastRun } from './last-run.ts'

const mayAudit = check('Sys.Audit', '/')
const mayModify = check('Sys.Modify', '/')
const jobId = string({ description: 'Name of the job.', pattern: /\S+/, maxLength: 50 })
/** Of a job nobody gave a name. */
const jobPrefix = 'backup-'

const rootsOwn = new Set(['tmpdir', 'dumpdir', 'script'])
const removesRootsOwn = ({ delete: list }: JobOptions) =>
  splitList(typeof list === 'string' ? list : '').some((name) => rootsOwn.has(name))

const alsoNeeds = {
  says: 'Datastore.AllocateSpace on the storage, and Datastore.Allocate to say which backups are kept; tmpdir, dumpdir and script are for root@pam alone, to take away as well',
  of: (params: JobOptions) => [
    ...(typeof params.storage === 'string' ? [check('Datastore.AllocateSpace', `/storage/${params.storage}`)] : []),
    ...(typeof params.storage === 'string' && params['prune-backups'] !== undefined
      ? [check('Datastore.Allocate', `/storage/${params.storage}`)]
      : []),
    // Whoever may change jobs is not root for that.
    ...([...rootsOwn].some((name) => params[name] !== undefined) || removesRootsOwn(params) ? [rootOnly] : []),
  ],
}

const jobReply = record({
  description:
    'The job as it was configured, with `id`, `next-run`, and of the run before `last-run` and `last-result`: `OK`, `WARNINGS: n`, `RUNNING` or the error.',
})

export const backupJobEndpoints = [
  endpoint({
    method: 'GET',
    path: '/cluster/backup',
    description: 'Backup jobs.',
    params: {},
    permission: mayAudit,
    returns: array(jobReply),
    cli: {
      command: ['job', 'list'],
      columns: [
        'id',
        'enabled',
        'schedule',
        'next-run',
        'last-run',
        'last-result',
        'storage',
        'vmid',
        'all',
        'pool',
        'comment',
      ],
      id: 'id',
    },
    async handle(_, call) {
      return Promise.all((await call.services.backupJobs.list()).map((job) => shown(job, call)))
    },
  }),
  endpoint({
    method: 'POST',
    path: '/cluster/backup',
    description: 'Create a backup job.',
    params: {
      id: optional(string({ description: 'Name of the job.', format: 'pve-configid', maxLength: 50 })),
      ...jobParams,
      dow: { ...jobParams.dow, default: 'mon,tue,wed,thu,fri,sat,sun' },
    },
    permission: mayModify,
    alsoNeeds,
    returns: nothing,
    cli: {
      command: ['job', 'create'],
      chooses: { option: 'id', prefix: jobPrefix },
      examples: ["job create --id nightly --schedule 'mon..fri 02:30' --all 1 --storage local --repeat-missed 1"],
      unlisted: withoutEffect,
    },
    handle: create,
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/backup/{id}',
    description: 'A backup job.',
    params: { id: jobId },
    permission: mayAudit,
    returns: jobReply,
    cli: { command: ['job', 'show'], positional: ['id'], examples: ['job show nightly'] },
    handle: async ({ id }, call) => shown(await call.services.backupJobs.get(id), call),
  }),
  endpoint({
    method: 'PUT',
    path: '/cluster/backup/{id}',
    description: 'Change a backup job.',
    params: {
      id: jobId,
      ...jobParams,
      delete: optional(
        string({ description: 'Options to return to their default.', format: 'pve-configid-list', maxLength: 4096 }),
      ),
    },
    permission: mayModify,
    alsoNeeds,
    returns: nothing,
    cli: {
      command: ['job', 'set'],
      positional: ['id'],
      examples: ['job set nightly --enabled 0'],
      unlisted: withoutEffect,
    },
    handle: change,
  }),
  endpoint({
    method: 'DELETE',
    path: '/cluster/backup/{id}',
    description: 'Delete a backup job; the backups it made stay.',
    params: { id: jobId },
    permission: mayModify,
    returns: nothing,
    cli: { command: ['job', 'delete'], positional: ['id'], examples: ['job delete nightly'] },
    handle: ({ id }, { services }) => services.backupJobs.delete(id).then(() => null),
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/backup/{id}/included_volumes',
    description: 'Disks a backup job holds and leaves out, guest by guest.',
    params: { id: jobId },
    permission: mayAudit,
    returns: object({
      children: array(
        object({
          id: integer({ description: 'Number of the guest.' }),
          name: optional(string({ description: 'Its name.' })),
          type: enumOf(['qemu', 'lxc', 'unknown'], { description: 'Kind of guest.' }),
          children: array(
            object({
              id: string({ description: 'Drive.' }),
              name: string({ description: 'Its volume.' }),
              included: boolean({ description: 'Backups hold it.' }),
              reason: string({ description: 'Why, or why not.' }),
            }),
          ),
        }),
      ),
    }),
    async handle({ id }, { services }) {
      const [job, guests, pools] = [
        await services.backupJobs.get(id),
        await services.guests.list(),
        await services.pools.all(),
      ]
      const numbers = guests.map(({ vmid }) => Number(vmid))
      return { children: includedVolumes(guests, coveredBy(job, numbers, pools)) }
    },
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/backup-info',
    description: 'What there is to ask about backups of the cluster.',
    params: {},
    permission: rootOnly,
    returns: array(object({ subdir: string() })),
    handle: () => [{ subdir: 'not-backed-up' }],
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/backup-info/not-backed-up',
    description: 'Guests no enabled backup job covers.',
    params: {},
    permission: mayAudit,
    returns: array(
      object({
        vmid: vmidSchema,
        name: optional(string({ description: 'Its name.' })),
        type: enumOf(['qemu', 'lxc'], { description: 'Kind of guest.' }),
      }),
    ),
    cli: { command: ['job', 'uncovered'], columns: ['vmid', 'name', 'type'], id: 'vmid' },
    async handle(_, { services }) {
      const [jobs, guests, pools] = [
        (await services.backupJobs.list()).filter(isEnabled),
        await services.guests.list(),
        await services.pools.all(),
      ]
      const numbers = guests.map(({ vmid }) => Number(vmid))
      const covered = new Set(jobs.flatMap((job) => coveredBy(job, numbers, pools)))
      return guests.filter(({ vmid }) => !covered.has(vmid)).map(({ vmid, name, kind }) => ({ vmid, name, type: kind }))
    },
  }),
]

async function create({ id: wish, ...given }: JobOptions, { services }: Call): Promise<null> {
  const schedule = scheduleOf(given)
  if (schedule === undefined) throw invalid({ schedule: "neither 'starttime' nor 'schedule' were set" })
  const id = typeof wish === 'string' ? wish : `${jobPrefix}${services.random.uuid().slice(0, 13)}`
  const job = { id, options: normal({ ...given, schedule }) }
  requireRunnable(job, await services.pools.all())
  await requireStorage(job, services)
  await services.backupJobs.create(id, job.options)
  return null
}

async function change(params: JobOptions, { services }: Call): Promise<null> {
  const { id, delete: list, ...given } = params
  const name = String(id)
  const schedule = scheduleOf(given)
  const set = normal({ ...given, ...(schedule === undefined ? {} : { schedule }) })
  const remove = splitList(typeof list === 'string' ? list : '')
  const unknown = remove.find((option) => !Object.hasOwn(jobParams, option))
  if (unknown !== undefined) throw invalid({ delete: `unknown option '${unknown}'` })
  const changed = (before: JobOptions) => ({ ...without(before, [...remove, ...replacedBy(set)]), ...set })
  const job = { id: name, options: changed((await services.backupJobs.get(name)).options) }
  requireRunnable(job, await services.pools.all())
  await requireStorage(job, services)
  await services.backupJobs.change(name, changed)
  return null
}

async function requireStorage({ options }: BackupJob, { storage }: Call['services']): Promise<void> {
  if (typeof options.storage !== 'string') return
  const { content } = await storage.get(options.storage)
  if (!content.some((one) => one === 'backup')) {
    throw new Fault('conflict', `storage '${options.storage}' does not support backups`)
  }
}

/** The three ways to say which guests exclude one another: the new one takes the place of the old. */
function replacedBy(set: JobOptions): string[] {
  if (set.vmid !== undefined) return ['all', 'pool', 'exclude']
  if (set.pool !== undefined) return ['all', 'vmid']
  return set.all === true ? ['vmid', 'pool'] : []
}

function without(options: JobOptions, names: readonly string[]): JobOptions {
  return Object.fromEntries(Object.entries(options).filter(([name]) => !names.includes(name)))
}

/** Without what is absent, and without the older spelling of the time. */
function normal(options: JobOptions): JobOptions {
  const given = Object.entries(options).filter(([, value]) => value !== undefined)
  const all = options.exclude !== undefined && options.pool === undefined && options.vmid === undefined
  return { ...without(Object.fromEntries(given), ['starttime', 'dow']), ...(all ? { all: true } : {}) }
}

async function shown(job: BackupJob, { services }: Call): Promise<Record<string, unknown>> {
  const next = await services.backupJobs.nextRun(job, await services.machine.timeZone())
  const options = Object.entries({ enabled: true, ...job.options }).map(([name, value]) => {
    const format = asProperties[name]
    const read = format && typeof value === 'string' ? readPropertyString(format, value, name) : value
    return [name, onWire(read)] as const
  })
  return {
    id: job.id,
    type: 'vzdump',
    ...Object.fromEntries(options),
    ...(next === undefined ? {} : { 'next-run': next }),
    ...(await lastRun((await services.backupJobs.runOf(job.id)).upid, services)),
  }
}

/** The reply is a record, so nobody turns truths into numbers after us. */
function onWire(value: unknown): unknown {
  if (typeof value === 'boolean') return Number(value)
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, onWire(part)]))
}
