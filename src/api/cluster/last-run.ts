/** What jobs that start a task tell of their last run. */
import { isFault } from '#base/fault.ts'
import { parseUpid } from '#tasks/upid.ts'
import type { Call } from '../call.ts'

/** As replies name what is known of a job's last run: when it began, in seconds since 1970, and what its task ended with. */
export interface LastRun {
  readonly 'last-run'?: number
  /** `OK`, `WARNINGS: n`, `RUNNING` or the error. */
  readonly 'last-result'?: string
}

/** Of a task that is not kept any more only when it began is known. */
export async function lastRun(upid: string | undefined, { tasks }: Pick<Call['services'], 'tasks'>): Promise<LastRun> {
  if (upid === undefined) return {}
  const began = { 'last-run': parseUpid(upid).starttime }
  try {
    const { exitstatus = 'RUNNING' } = await tasks.status(upid)
    return { ...began, 'last-result': exitstatus }
  } catch (fault) {
    if (!isFault(fault, 'invalid')) throw fault
    return began
  }
}
