/** Runs backup jobs when they are due. */
import type { BackupJob } from '#cluster/backup-jobs.ts'
import { requestOf } from '#operations/backup/job.ts'
import { backupGuests } from '#operations/backup/run.ts'
import type { NodeServices } from '#services.ts'
import type { Json } from '#store/store.ts'
import { type DueDeps, type JobKind, keepRunning, runDue } from './due-jobs.ts'

export type JobDeps = DueDeps & Pick<NodeServices, 'guests' | 'pools' | 'backupJobs'>

export function runBackupJobs(deps: JobDeps, signal: AbortSignal): void {
  keepRunning(deps, kindOf(deps), signal)
}

/** Starts what is due now; returns the tasks. */
export async function runDueJobs(deps: JobDeps): Promise<string[]> {
  return runDue(deps, kindOf(deps))
}

function kindOf(deps: JobDeps): JobKind {
  return { noun: 'backup', jobs: deps.backupJobs, start: (job) => start(deps, job) }
}

async function start(deps: JobDeps, job: BackupJob): Promise<string | undefined> {
  const guests = (await deps.guests.list()).map(({ vmid }) => Number(vmid))
  const request = requestOf(job, guests, await deps.pools.all())
  if (request === undefined) {
    deps.log.info('a backup job covers no guest', { job: job.id })
    return undefined
  }
  const params: Json = JSON.parse(JSON.stringify(request))
  return deps.tasks.start({ operation: backupGuests.name, params, user: 'root@pam' })
}
