/**
 * Runs jobs of any kind when they are due.
 *
 * Takes no input but the jobs, the clock and what was written down of earlier runs; a node that was off finds out
 * by itself what it missed. A missed run is made up for once, and only for jobs that ask for it; a restart of the
 * daemon in the minute a job is due is no miss. A round that fails is logged and the next one tries again.
 */
import { seconds } from '#base/clock.ts'
import { dueAfter, isEnabled, type Job, type ScheduledJobs } from '#cluster/scheduled-jobs.ts'
import type { NodeServices } from '#services.ts'
import { keepGoing } from './rounds.ts'

const everyMs = 5_000
/** Later than this, a run was missed. */
const lateSeconds = 300

export type DueDeps = Pick<NodeServices, 'settings' | 'clock' | 'log' | 'machine'> & {
  readonly tasks: Pick<NodeServices['tasks'], 'start' | 'active'>
}

export interface JobKind {
  /** In the log: `backup`. */
  readonly noun: string
  readonly jobs: ScheduledJobs
  /** One run too many does no harm, so none is lost: the job is owed it until it says that it is `paid`. */
  readonly isOwed?: true
  /** Starts a run; nothing when the job has nothing to do. */
  readonly start: (job: Job) => Promise<string | undefined>
}

/** Looks again and again, until the signal fires. */
export function keepRunning(deps: DueDeps, kind: JobKind, signal: AbortSignal): void {
  const round = async () => void (await runDue(deps, kind))
  const failed = `looking for ${kind.noun} jobs that are due failed`
  keepGoing(deps, { everyMs, round, failed, ended: `nobody runs ${kind.noun} jobs any more` }, signal)
}

/** Starts what is due now; returns the tasks. */
export async function runDue(deps: DueDeps, kind: JobKind): Promise<string[]> {
  const zone = await deps.machine.timeZone()
  const started: string[] = []
  for (const job of await kind.jobs.list()) {
    try {
      const upid = await runIfDue(deps, kind, job, zone)
      if (upid !== undefined) started.push(upid)
    } catch (error) {
      deps.log.error(`a ${kind.noun} job could not be started`, { job: job.id, error })
    }
  }
  return started
}

async function runIfDue(deps: DueDeps, kind: JobKind, job: Job, zone: string): Promise<string | undefined> {
  const { settings, clock, log } = deps
  const { jobs, noun } = kind
  if (!isEnabled(job) || (job.options.node !== undefined && job.options.node !== settings.node)) return undefined
  const run = await jobs.runOf(job.id)
  // Not at once: one that kills whoever begins it must not do so all the time.
  const isOwed = run.isOwed === true && seconds(clock) > run.since + lateSeconds
  const due = isOwed ? seconds(clock) : dueAfter(job, run.since, zone)
  if (due === undefined || due > seconds(clock)) return undefined
  if (isStillRunning(deps, run.upid)) return undefined
  if (!(await jobs.take(job.id, run, kind.isOwed))) return undefined
  const isMissed = latestDue(job, due, seconds(clock), zone) < seconds(clock) - lateSeconds
  if (isMissed && !isOwed && job.options['repeat-missed'] !== true) {
    await jobs.paid(job.id)
    log.info(`a run of a ${noun} job was missed`, { job: job.id, due })
    return undefined
  }
  const upid = await kind.start(job)
  if (upid === undefined) return undefined
  await jobs.started(job.id, upid)
  log.info(`a ${noun} job runs`, { job: job.id, upid })
  return upid
}

/** Of several runs that are due by now, the last one decides whether this is late. */
function latestDue(job: Job, first: number, now: number, zone: string): number {
  const recent = dueAfter(job, Math.max(first - 1, now - lateSeconds - 1), zone)
  return recent !== undefined && recent <= now ? recent : first
}

function isStillRunning({ tasks }: DueDeps, upid: string | undefined): boolean {
  return tasks.active().some((task) => task.upid === upid)
}
