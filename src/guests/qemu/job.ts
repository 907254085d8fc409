/**
 * Jobs of QEMU that this program starts and sees to their end.
 *
 * A job outlives the connection, and even the process, that started it. Its id says whose it is, so that an undo in
 * another process can find it. All jobs here stay until they are dismissed, because a job that vanished by itself has
 * not said whether it succeeded.
 */
import { waitFor } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { QmpClient } from '#host/qemu/qmp.ts'

interface Job {
  readonly id: string
  readonly status: string
  readonly error?: string
  readonly 'current-progress': number
  readonly 'total-progress': number
}

/** Nothing QEMU does to a disk takes longer; while it writes memory away it answers nobody. */
const longestMs = 24 * 60 * 60_000
const pollMs = 20

export interface JobHow {
  readonly onProgress?: ((fraction: number) => void) | undefined
  readonly signal?: AbortSignal | undefined
  /** How often it is asked whether it is over. */
  readonly everyMs?: number
}

/** Runs a command that starts the job `id` and waits for its end. @throws Fault `failed` with QEMU's words */
export async function runJob(
  monitor: QmpClient,
  command: string,
  args: { readonly 'job-id': string; readonly [name: string]: unknown },
  how: JobHow = {},
): Promise<void> {
  await monitor.execute(command, args, { timeoutMs: longestMs })
  await untilEnd(monitor, args['job-id'], how)
}

/** Waits for the end of a job that is there. @throws Fault `failed` with QEMU's words */
export async function untilEnd(monitor: QmpClient, id: string, how: JobHow = {}): Promise<void> {
  await untilStatus(monitor, id, ['concluded'], how)
  await dismiss(monitor, id)
}

/** Waits until the job is in one of these states. @throws Fault `failed` when it ended with an error instead */
export async function untilStatus(
  monitor: QmpClient,
  id: string,
  wanted: readonly string[],
  { onProgress, signal, everyMs = pollMs }: JobHow = {},
): Promise<void> {
  const isThere = async () => {
    const job = await find(monitor, id)
    if (!job) throw new Fault('failed', `job '${id}' of QEMU vanished`)
    const { status, error } = job
    if (status === 'concluded' && error !== undefined) {
      await dismiss(monitor, id)
      throw new Fault('failed', `QEMU: ${error}`)
    }
    if (job['total-progress'] > 0) onProgress?.(Math.min(1, job['current-progress'] / job['total-progress']))
    return wanted.includes(status)
  }
  await waitFor(isThere, { what: `job '${id}' of QEMU`, timeoutMs: longestMs, everyMs, signal })
}

/** Ends whatever there is of the job, and forgets it. Harmless when there is none. */
export async function endJob(monitor: QmpClient, id: string): Promise<void> {
  const isGone = async () => {
    const job = await find(monitor, id)
    if (!job) return true
    // Some jobs cannot be cancelled; those end by themselves.
    const command = job.status === 'concluded' ? 'job-dismiss' : 'job-cancel'
    await monitor.execute(command, { id }).catch(onlyRefused)
    return false
  }
  await waitFor(isGone, { what: `end of job '${id}' of QEMU`, timeoutMs: longestMs, everyMs: pollMs })
}

async function find(monitor: QmpClient, id: string): Promise<Job | undefined> {
  const jobs = await monitor.execute<readonly Job[]>('query-jobs', {}, { timeoutMs: longestMs })
  return jobs.find((job) => job.id === id)
}

async function dismiss(monitor: QmpClient, id: string): Promise<void> {
  await monitor.execute('job-dismiss', { id })
}

/** QEMU refuses an act a job is not in the state for; by then the job has moved on. */
function onlyRefused(cause: unknown): void {
  if (!isFault(cause, 'failed')) throw cause
}
