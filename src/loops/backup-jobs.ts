/**
 * Runs backup jobs when they are due.
 *
 * Takes no input but the jobs, the clock and what was written down of earlier runs; a node that was off finds out
 * by itself what it missed. A missed run is made up for once, and only for jobs that ask for it; a restart of the
 * daemon in the minute a job is due is no miss. A round that fails is logged and the next one tries again.
 */
import { seconds } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { type BackupJob, dueAfter, isEnabled } from '#cluster/backup-jobs.ts'
import { requestOf } from '#operations/backup/job.ts'
import { backupGuests } from '#operations/backup/run.ts'
import type { NodeServices } from '#services.ts'
import type { Json } from '#store/store.ts'

const everyMs = 5_000
/** Later than this, a run was missed. */
const lateSeconds = 300

export type JobDeps = Pick<
  NodeServices,
  'settings' | 'clock' | 'log' | 'guests' | 'pools' | 'backupJobs' | 'machine'
> & {
  readonly tasks: Pick<NodeServices['tasks'], 'start' | 'active'>
}

export function runBackupJobs(deps: JobDeps, signal: AbortSignal): void {
  const { clock, log } = deps
  const rounds = async () => {
    for (;;) {
      await clock.sleep(everyMs, signal)
      try {
        await runDueJobs(deps)
      } catch (error) {
        log.error('looking for backup jobs that are due failed', { error })
      }
    }
  }
  rounds().catch((error: unknown) => {
    if (!isFault(error, 'aborted')) log.error('nobody runs backup jobs any more', { error })
  })
}

/** Starts what is due now; returns the tasks. */
export async function runDueJobs(deps: JobDeps): Promise<string[]> {
  const zone = await deps.machine.timeZone()
  const started: string[] = []
  for (const job of await deps.backupJobs.list()) {
    try {
      const upid = await runIfDue(deps, job, zone)
      if (upid !== undefined) started.push(upid)
    } catch (error) {
      deps.log.error('a backup job could not be started', { job: job.id, error })
    }
  }
  return started
}

async function runIfDue(deps: JobDeps, job: BackupJob, zone: string): Promise<string | undefined> {
  const { settings, clock, log, backupJobs } = deps
  if (!isEnabled(job) || (job.options.node !== undefined && job.options.node !== settings.node)) return undefined
  const run = await backupJobs.runOf(job.id)
  const due = dueAfter(job, run.since, zone)
  if (due === undefined || due > seconds(clock)) return undefined
  if (isStillRunning(deps, run.upid)) return undefined
  if (!(await backupJobs.take(job.id, run))) return undefined
  const isMissed = latestDue(job, due, seconds(clock), zone) < seconds(clock) - lateSeconds
  if (isMissed && job.options['repeat-missed'] !== true) {
    log.info('a run of a backup job was missed', { job: job.id, due })
    return undefined
  }
  return start(deps, job)
}

/** Of several runs that are due by now, the last one decides whether this is late. */
function latestDue(job: BackupJob, first: number, now: number, zone: string): number {
  const recent = dueAfter(job, Math.max(first - 1, now - lateSeconds - 1), zone)
  return recent !== undefined && recent <= now ? recent : first
}

async function start(deps: JobDeps, job: BackupJob): Promise<string | undefined> {
  const guests = (await deps.guests.list()).map(({ vmid }) => Number(vmid))
  const request = requestOf(job, guests, await deps.pools.all())
  if (request === undefined) {
    deps.log.info('a backup job covers no guest', { job: job.id })
    return undefined
  }
  const params: Json = JSON.parse(JSON.stringify(request))
  const upid = await deps.tasks.start({ operation: backupGuests.name, params, user: 'root@pam' })
  await deps.backupJobs.started(job.id, upid)
  deps.log.info('a backup job runs', { job: job.id, upid })
  return upid
}

function isStillRunning({ tasks }: JobDeps, upid: string | undefined): boolean {
  return tasks.active().some((task) => task.upid === upid)
}
