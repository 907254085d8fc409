/** Backup jobs: what is backed up by itself, and when. */
import type { Clock } from '#base/clock.ts'
import { splitList } from '#base/schema/formats.ts'
import type { Store } from '#store/store.ts'
import { type Job, type JobOptions, ScheduledJobs } from './scheduled-jobs.ts'

export { dueAfter, isEnabled, type JobOptions, type JobRun } from './scheduled-jobs.ts'
export type BackupJob = Job

export class BackupJobs extends ScheduledJobs {
  constructor(needs: { readonly store: Store; readonly clock: Clock }) {
    super(needs, 'backup')
  }

  /** Takes a guest that is no more out of every job that names it, so that the next of its id is not covered by chance. */
  async forgetGuest(vmid: number): Promise<void> {
    for (const { id, options } of await this.list()) {
      if (!named.some((name) => idsOf(options[name]).includes(vmid))) continue
      await this.adapt(id, (before) => withoutGuest(before, vmid))
    }
  }
}

/** Options that name guests. */
const named = ['vmid', 'exclude'] as const
const idsOf = (list: unknown): number[] => (typeof list === 'string' ? splitList(list).map(Number) : [])

function withoutGuest(options: JobOptions, vmid: number): Record<string, unknown> {
  const changed: Record<string, unknown> = { ...options }
  for (const name of named) {
    if (changed[name] === undefined) continue
    const left = idsOf(changed[name]).filter((id) => id !== vmid)
    if (left.length > 0) changed[name] = left.join(',')
    else delete changed[name]
  }
  return changed
}
