/**
 * What a job came to, for whoever tells of it. A backup that is good may still bring something people have to look at: an alarm,
 * where what is known of a guest was found wrong, or a hint, where it changed as it never does, or somebody wrote to what was read. Both count as a failure for those
 * who want to hear of failures alone, and as none for the job.
 */

/** What a job came to. */
export interface JobOutcome {
  /** What was done: backups when absent. */
  readonly event?: 'canary' | 'verify' | 'sync' | undefined
  readonly node: string
  readonly upid: string
  /** Absent where somebody asked for the backup by hand. */
  readonly job?: string | undefined
  readonly storage: string
  readonly startedMs: number
  readonly endedMs: number
  readonly isFailed: boolean
  /** Why no guest had its turn, or the others had not. */
  readonly reason?: string | undefined
  readonly guests: readonly GuestOutcome[]
}

/** What was noticed of a guest. */
export interface Notices {
  /** What somebody has to look at. */
  readonly alarms?: readonly string[]
  /** Why its change is unusual, and which files were not kept as they were at one moment. */
  readonly hint?: string
}

export interface GuestOutcome extends Notices {
  readonly vmid: number
  /** Volume id of the backup. */
  readonly volid?: string
  /** Why there is none. */
  readonly reason?: string
  readonly seconds: number
}

export const hasAlarm = ({ alarms = [] }: Notices) => alarms.length > 0
export const hasHint = ({ hint }: Notices) => hint !== undefined

/** What stands behind the word for how it went. */
export function besides(guests: readonly Notices[]): string {
  if (guests.some(hasAlarm)) return ', with an ALARM'
  return guests.some(hasHint) ? ', with a hint' : ''
}

/** Whether those hear of it who want to hear of failures alone. */
export function needsLook({ isFailed, guests }: Pick<JobOutcome, 'isFailed' | 'guests'>): boolean {
  return isFailed || besides(guests) !== ''
}
