/** Our own branch: jobs that look after datastores by themselves, and what they found. */
import { invalid } from '#base/fault.ts'
import { splitList } from '#base/schema/formats.ts'
import { array, boolean, enumOf, integer, nothing, object, optional, refine, string } from '#base/schema/schema.ts'
import { storageId, upid } from '#base/schema/standard.ts'
import { datastoreJobTypes } from '#cluster/datastore-jobs.ts'
import type { Job, JobOptions } from '#cluster/scheduled-jobs.ts'
import { defaultGigabytes, defaultMinutes, tendDatastore, tendingOf } from '#operations/backup/tend.ts'
import { check } from '#rest/endpoint.ts'
import { type Call, endpoint } from '../call.ts'

const id = string({ description: 'Name of the job.', format: 'pve-configid', maxLength: 64 })
const facts = {
  storage: optional(
    refine(storageId, { description: 'Storage whose datastore is looked after; of a sync, where the copy is.' }),
  ),
  schedule: optional(
    string({ description: 'When, as a calendar event.', format: 'pve-calendar-event', maxLength: 128 }),
  ),
  enabled: optional(boolean({ description: 'It runs by itself.', default: true })),
  comment: optional(string({ description: 'Note for people.', maxLength: 512 })),
  'repeat-missed': optional(boolean({ description: 'Make up once for runs that were missed.', default: false })),
  mailto: optional(
    string({ description: 'Addresses that hear of it.', format: 'email-or-username-list', maxLength: 4096 }),
  ),
  mailnotification: optional(
    enumOf(['always', 'failure'], { description: 'When a mail goes to mailto.', default: 'failure' }),
  ),
  source: optional(refine(storageId, { description: 'Of a sync: storage whose datastore is copied.' })),
  namespace: optional(
    string({
      description: 'Of a sync: only backups of this namespace and below.',
      pattern: /[a-z0-9][a-z0-9_-]{0,31}(?:\.[a-z0-9][a-z0-9_-]{0,31}){0,7}/,
      maxLength: 263,
    }),
  ),
  bwlimit: optional(
    integer({
      description: 'Of a sync: KiB per second at most; 0 is no limit.',
      minimum: 0,
      maximum: 2 ** 40,
      default: 0,
    }),
  ),
  'remove-vanished': optional(
    boolean({ description: 'Of a sync: remove from the copy what is gone at the source.', default: false }),
  ),
  minutes: optional(
    integer({ description: 'Of verify: time of a run.', minimum: 1, maximum: 1_440, default: defaultMinutes }),
  ),
  gigabytes: optional(
    integer({
      description: 'Of verify: GiB a run reads at most.',
      minimum: 1,
      maximum: 1_048_576,
      default: defaultGigabytes,
    }),
  ),
  replica: optional(
    refine(storageId, { description: 'Of verify: storage with a copy, to fetch what is damaged from.' }),
  ),
}
const ofType = {
  canary: [],
  verify: ['minutes', 'gigabytes', 'replica'],
  sync: ['source', 'namespace', 'bwlimit', 'remove-vanished'],
} as const
const special: readonly string[] = Object.values(ofType).flat()
const type = enumOf(datastoreJobTypes, {
  description:
    'canary: try to destroy what is stored; verify: read what was not read for longest; sync: bring a copy up to date.',
})
const reply = object({
  id,
  type,
  ...facts,
  'next-run': optional(integer({ description: 'In seconds since 1970.' })),
  'last-run': optional(integer({ description: 'When the last run began, in seconds since 1970.' })),
  result: optional(enumOf(['good', 'failed'], { description: 'What the last run came to.' })),
  says: optional(string({ description: 'What it found.' })),
  oldest: optional(integer({ description: 'Of verify: when the pack was read that was not for longest.' })),
})
const mayLook = check('Sys.Audit', '/')
const mayChange = check('Sys.Modify', '/')
const ofStorages = {
  says: 'Datastore.Allocate on each storage',
  of: ({
    storage,
    source,
    replica,
  }: {
    storage?: string | undefined
    source?: string | undefined
    replica?: string | undefined
  }) =>
    [storage, source, replica].flatMap((name) =>
      name === undefined ? [] : [check('Datastore.Allocate', `/storage/${name}`)],
    ),
}

export const datastoreJobEndpoints = [
  endpoint({
    method: 'GET',
    path: '/hako/datastore-jobs',
    description: 'Jobs that look after datastores, and what their last runs found.',
    params: {},
    permission: mayLook,
    returns: array(reply),
    isOwn: true,
    cli: {
      command: ['backup', 'upkeep', 'list'],
      columns: ['id', 'type', 'storage', 'source', 'enabled', 'schedule', 'next-run', 'last-run', 'result', 'says'],
      id: 'id',
      examples: ['backup upkeep list'],
    },
    async handle(_, { services }) {
      return Promise.all((await services.datastoreJobs.list()).map((job) => shown(job, services)))
    },
  }),
  endpoint({
    method: 'POST',
    path: '/hako/datastore-jobs',
    description: 'Let a datastore be looked after by itself.',
    params: { id, type, ...facts },
    permission: mayChange,
    alsoNeeds: ofStorages,
    returns: nothing,
    isOwn: true,
    cli: {
      command: ['backup', 'upkeep', 'add'],
      positional: ['id'],
      examples: [
        'backup upkeep add offsite --type sync --source local --storage cloud --schedule 04:00 --bwlimit 10240',
        'backup upkeep add nightly --type verify --storage local --minutes 30 --replica cloud --schedule 02:00',
        'backup upkeep add canary --type canary --storage cloud --schedule 06:00',
      ],
    },
    async handle({ id: name, ...given }, { services }) {
      await services.datastoreJobs.create(name, await checked(given, services))
      return null
    },
  }),
  endpoint({
    method: 'GET',
    path: '/hako/datastore-jobs/{id}',
    description: 'A job that looks after a datastore.',
    params: { id },
    permission: mayLook,
    returns: reply,
    isOwn: true,
    cli: { command: ['backup', 'upkeep', 'show'], positional: ['id'], examples: ['backup upkeep show offsite'] },
    handle: async ({ id: name }, { services }) => shown(await services.datastoreJobs.get(name), services),
  }),
  endpoint({
    method: 'PUT',
    path: '/hako/datastore-jobs/{id}',
    description: 'Change a job that looks after a datastore.',
    params: {
      id,
      ...facts,
      delete: optional(
        string({ description: 'Options to return to their default.', format: 'pve-configid-list', maxLength: 4096 }),
      ),
    },
    permission: mayChange,
    alsoNeeds: ofStorages,
    returns: nothing,
    isOwn: true,
    cli: {
      command: ['backup', 'upkeep', 'set'],
      positional: ['id'],
      examples: ['backup upkeep set nightly --minutes 60'],
    },
    async handle({ id: name, delete: list, ...given }, { services }) {
      const removed = splitList(list ?? '')
      const unknown = removed.find((option) => !Object.hasOwn(facts, option))
      if (unknown !== undefined) throw invalid({ delete: `there is no option '${unknown}'` })
      const { options } = await services.datastoreJobs.get(name)
      const kept = Object.entries(options).filter(([option]) => !removed.includes(option))
      const after = await checked({ ...Object.fromEntries(kept), ...present(given) }, services)
      await services.datastoreJobs.change(name, () => after)
      return null
    },
  }),
  endpoint({
    method: 'DELETE',
    path: '/hako/datastore-jobs/{id}',
    description: 'Let a datastore no longer be looked after by this job.',
    params: { id },
    permission: mayChange,
    returns: nothing,
    isOwn: true,
    cli: { command: ['backup', 'upkeep', 'delete'], positional: ['id'], examples: ['backup upkeep delete offsite'] },
    handle: ({ id: name }, { services }) => services.datastoreJobs.delete(name).then(() => null),
  }),
  endpoint({
    method: 'POST',
    path: '/hako/datastore-jobs/{id}/run',
    description: 'Run a job that looks after a datastore now.',
    params: { id },
    permission: mayChange,
    returns: upid,
    isOwn: true,
    cli: { command: ['backup', 'upkeep', 'run'], positional: ['id'], examples: ['backup upkeep run offsite'] },
    handle: async ({ id: name }, { services, start }) =>
      start(tendDatastore, tendingOf(await services.datastoreJobs.get(name))),
  }),
] as const

const present = (options: JobOptions) =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))

/** What the job will do is judged now, not in the night. @throws Fault `invalid` naming the field, `missing` */
async function checked(given: JobOptions, { storage }: Call['services']): Promise<JobOptions> {
  const options = present(given)
  for (const needed of ['storage', 'schedule', ...(options.type === 'sync' ? ['source'] : [])]) {
    if (options[needed] === undefined) throw invalid({ [needed]: 'property is missing and it is not optional' })
  }
  const kind = datastoreJobTypes.find((one) => one === options.type) ?? 'canary'
  const own: readonly string[] = ofType[kind]
  const foreign = special.find((name) => options[name] !== undefined && !own.includes(name))
  if (foreign !== undefined) throw invalid({ [foreign]: `a job of type '${kind}' has no '${foreign}'` })
  for (const name of ['source', 'replica']) {
    if (options[name] === options.storage) throw invalid({ [name]: 'it is another storage than the one looked after' })
  }
  for (const name of ['storage', 'source', 'replica']) {
    if (options[name] !== undefined) await storage.requireContent(`${options[name] as string}`, 'backup')
  }
  tendingOf({ id: '', options })
  return options
}

async function shown(job: Job, { datastoreJobs, machine }: Call['services']) {
  const next = await datastoreJobs.nextRun(job, await machine.timeZone())
  const last = await datastoreJobs.outcomeOf(job.id)
  const found = last && {
    'last-run': Math.round(last.ended - (last.seconds ?? 0)),
    result: last.isGood ? ('good' as const) : ('failed' as const),
    says: last.says,
    ...(last.oldest === undefined ? {} : { oldest: last.oldest }),
  }
  // Written by us, from parameters that were checked.
  const options = job.options as Record<string, never> & { readonly type: (typeof datastoreJobTypes)[number] }
  return { enabled: true, ...options, id: job.id, ...(next === undefined ? {} : { 'next-run': next }), ...found }
}
