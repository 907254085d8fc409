/**
 * A run of a job that looks after a datastore: a canary, a part of what is stored read again, a copy brought up to date.
 *
 * What it came to is written down and told like a backup's end, also by whoever finds that its process died: it is written
 * down before it is told, and what was found before it is mended. Has nothing else to undo: what was read, fetched or copied
 * stays as good as it is, and the next run goes on.
 */
import type { DatastoreUpkeep } from '#backup/upkeep.ts'
import { humanSize, GiB, rateOfLimit } from '#base/bytes.ts'
import { seconds } from '#base/clock.ts'
import { Fault, messageOf } from '#base/fault.ts'
import type { DatastoreJobOutcome, DatastoreJobs, DatastoreJobType } from '#cluster/datastore-jobs.ts'
import type { Job } from '#cluster/scheduled-jobs.ts'
import { ioPriority } from '#host/programs/io-priority.ts'
import type { Services } from '#services.ts'
import { operation, type StepContext } from '#tasks/operation.ts'
import { marksTo } from './give-back.ts'
import { type Notify, tell } from './report.ts'
import { notifyIn } from './request.ts'

export interface TendDatastore {
  readonly job: string
  readonly type: DatastoreJobType
  readonly storage: string
  /** Of a sync: where it is copied from. */
  readonly source?: string | undefined
  readonly namespace?: string | undefined
  /** KiB per second. */
  readonly bwlimit?: number | undefined
  readonly removesVanished?: boolean | undefined
  /** Of a look: so many minutes, and GiB, at most. */
  readonly minutes?: number | undefined
  readonly gigabytes?: number | undefined
  readonly replica?: string | undefined
  readonly notify?: Notify | undefined
}

export type TendDeps = Pick<Services, 'settings' | 'clock' | 'store' | 'host'> & {
  readonly upkeep: Pick<DatastoreUpkeep, 'canary' | 'roll' | 'sync'>
  readonly datastoreJobs: Pick<DatastoreJobs, 'cameTo' | 'told' | 'outcomeOf'>
}

type Context = Pick<
  StepContext<TendDatastore, TendDeps, unknown>,
  'params' | 'deps' | 'log' | 'warn' | 'progress' | 'signal' | 'task'
>

interface Finding {
  readonly isGood: boolean
  readonly says: string
  /** Something was wrong, though it is right again: people are told. */
  readonly isAlarm?: boolean
  readonly oldest?: number | undefined
  /** Read by a look, or copied. */
  readonly bytes?: number | undefined
  /** Packs that came back from a copy. */
  readonly fetched?: number | undefined
}

/** Of a job as it was configured, from parameters that were checked. @throws Fault `invalid` for a wrong address */
export function tendingOf({ id, options }: Job): TendDatastore {
  const { type, storage, source, namespace, bwlimit, minutes, gigabytes, replica } = options as unknown as TendDatastore
  const { mailto, mailnotification: on = 'failure' } = options as {
    readonly mailto?: string
    readonly mailnotification?: Notify['on']
  }
  const removesVanished = options['remove-vanished'] === true
  const notify = notifyIn({ mailto, mailnotification: on })
  return { job: id, type, storage, source, namespace, bwlimit, minutes, gigabytes, replica, removesVanished, notify }
}

export const defaultMinutes = 15
export const defaultGigabytes = 64

export const tendDatastore = operation<TendDatastore, TendDeps>('hakotend', { id: ({ job }) => job }).step('tend', {
  async do(context) {
    const { params, deps, log, warn } = context
    const startedMs = deps.clock.monotonic()
    const took = () => (deps.clock.monotonic() - startedMs) / 1000
    let finding: Finding
    try {
      finding = await work[params.type](context)
    } catch (cause) {
      await conclude(context, { isGood: false, says: messageOf(cause) }, took())
      throw cause
    }
    log(finding.says)
    await conclude(context, finding, took())
    if (!finding.isGood) throw new Fault('failed', finding.says)
    if (finding.isAlarm === true) warn('what was damaged is whole again')
  },
  async undo(context) {
    const { params, deps, task } = context
    const last = await deps.datastoreJobs.outcomeOf(params.job)
    const died = 'its process ended unexpectedly'
    if (last?.upid !== task.upid) await conclude(context, { isGood: false, says: died })
    else if (last.stage === 'found')
      await conclude(context, { isGood: false, says: `${died}; it had found: ${last.says}` })
    else if (last.stage === 'ended') await tellOf(context, last)
  },
})

const work: Readonly<Record<DatastoreJobType, (context: Context) => Promise<Finding>>> = { canary, verify, sync }

/** @param took seconds, where that is known */
async function conclude(context: Context, finding: Finding, took?: number): Promise<void> {
  await tellOf(context, await writtenDown(context, 'ended', finding, took))
}

async function writtenDown(
  { params: { job, type, storage }, deps, task }: Context,
  stage: 'found' | 'ended',
  { isGood, says, isAlarm = !isGood, ...figures }: Finding,
  took?: number,
): Promise<DatastoreJobOutcome> {
  const known = Object.entries({ ...figures, seconds: took }).filter(([, figure]) => figure !== undefined)
  const found = { isGood, says, isAlarm, ...Object.fromEntries(known) }
  const outcome = { storage, type, ended: seconds(deps.clock), upid: task.upid, stage, ...found }
  await deps.datastoreJobs.cameTo(job, outcome)
  return outcome
}

async function tellOf(
  { params: { job, type, storage, notify }, deps, log, signal, task }: Context,
  { says, isAlarm = false }: DatastoreJobOutcome,
): Promise<void> {
  const about = { event: type, job, storage, endedMs: deps.clock.now(), isFailed: isAlarm, guests: [] }
  await tell({ notify, deps, log, signal, task }, { ...about, ...(isAlarm ? { reason: says } : {}) })
  await deps.datastoreJobs.told(job, task.upid)
}

async function canary({ params: { storage }, deps, log }: Context): Promise<Finding> {
  const { attempts, isSafe } = await deps.upkeep.canary(storage)
  for (const { attempt, refused, until } of attempts) {
    log(`${attempt}: ${refused ? 'refused' : 'NOT REFUSED'}${until === undefined ? '' : ` until ${until}`}`)
  }
  if (isSafe) return { isGood: true, says: `storage '${storage}' refuses to lose what it was given` }
  const open = attempts.filter(({ refused }) => !refused).map(({ attempt }) => attempt)
  return {
    isGood: false,
    says: `whoever breaks into this node can destroy what is on storage '${storage}': ${open.join(', ')}`,
  }
}

async function verify(context: Context): Promise<Finding> {
  const { params, deps, log, progress, signal } = context
  const { storage, minutes = defaultMinutes, gigabytes = defaultGigabytes, replica } = params
  // Nobody waits for it.
  using _rank = ioPriority(8)
  const before: string[] = []
  const onFound = async (damage: readonly string[]) => {
    for (const line of damage) log(line)
    before.push(...damage)
    await writtenDown(context, 'found', { isGood: false, says: before.join('; ') })
  }
  const rolled = await deps.upkeep.roll(storage, {
    budgetMs: minutes * 60_000,
    budgetBytes: gigabytes * GiB,
    replica,
    signal,
    onFound,
    onProgress: (done, all) => progress('packs', done / Math.max(1, all), done),
  })
  const { packs, bytes, left, hit, fetched, lost, mended: ofIndex, oldest } = rolled
  log(`${packs} packs (${humanSize(bytes)}) were read, ${left} are left for other days`)
  for (const name of fetched) log(`${name} came back from storage '${replica}'`)
  const figures = { oldest, bytes, fetched: fetched.filter((name) => name.startsWith('packs/')).length }
  const seen = `${packs} packs of storage '${storage}' read`
  const index = ofIndex.length === 0 ? '' : '; the index was damaged, and is mended from the packs'
  if (lost.length + fetched.length === 0) {
    return { isGood: true, isAlarm: index !== '', says: `${seen}${index === '' ? ', all whole' : index}`, ...figures }
  }
  const hits = hit.length === 0 ? 'no backup is hit' : `${hit.length} backups are hit: ${hit.slice(0, 5).join(', ')}`
  const mended = `${fetched.length} files came back from storage '${replica}'`
  if (lost.length === 0)
    return {
      isGood: true,
      isAlarm: true,
      says: `${seen}; damage was found (${hits}), and ${mended}${index}`,
      ...figures,
    }
  const how = replica === undefined ? 'there is no copy to fetch them from' : mended
  return { isGood: false, says: `${seen}; ${lost.length} files are damaged (${hits}); ${how}`, ...figures }
}

async function sync({ params, deps, progress, signal }: Context): Promise<Finding> {
  const { storage, source = '', namespace, bwlimit, removesVanished } = params
  const { backups, removed, packs, bytes } = await deps.upkeep.sync(source, storage, {
    namespace,
    removesVanished,
    rateBytesPerSecond: rateOfLimit(bwlimit),
    signal,
    onProgress: marksTo(progress),
  })
  const gone = removed === 0 ? '' : `, ${removed} removed`
  return {
    isGood: true,
    bytes,
    says: `${backups} backups and ${packs} packs (${humanSize(bytes)}) copied from storage '${source}' to '${storage}'${gone}`,
  }
}
