/** The record of one drill: what was tried, what was seen, how long it took. Written into the evidence as it is. */
import type { LevelVerdict } from './ladder.ts'
import type { Level } from './level.ts'

/** Durations in milliseconds; a phase that was not entered is absent. */
export type PhaseTimes = {
  /** Reading, verifying and decompressing chunks. */
  readonly fetch?: number
  /** Putting them onto the target storage; of file trees the one and the other in one go. */
  readonly write?: number
  /** Power on until the operating system shows itself. */
  readonly boot?: number
  /** Until agent and network answer. */
  readonly ready?: number
  /** Until the application check passed. */
  readonly application?: number
}

export interface DrillRecord {
  readonly id: string
  readonly node: string
  readonly upid: string
  /** `vm/100`, `ct/101`. */
  readonly guest: string
  /** In the words of the API: `qemu`, `lxc`. Absent in records from before there were containers. */
  readonly kind?: string
  readonly name?: string
  /** Volume id of the restore point. */
  readonly archive: string
  /** ISO times. `pointInTime` is when the data was frozen, `started` when the drill began. */
  readonly pointInTime?: string
  readonly started: string
  readonly ended: string
  readonly wanted: Level
  readonly reached?: Level
  readonly proven: boolean
  /** What L6 was asked to show. */
  readonly probes?: readonly string[]
  readonly verdicts: readonly LevelVerdict[]
  readonly phases: PhaseTimes
  /** Sum of the phases: from the order to restore until the last wanted level held. Only when proven, and restored. */
  readonly recoveryTimeMs?: number
  /** Age of the data when the drill began. */
  readonly dataAgeMs?: number
  readonly quote: string
}

const phaseNames = ['fetch', 'write', 'boot', 'ready', 'application'] as const

export function recoveryTimeMs(phases: PhaseTimes): number {
  return phaseNames.reduce((sum, name) => sum + (phases[name] ?? 0), 0)
}

/** `00:07.4` – minutes, seconds and tenths; with hours in front from one hour on. */
export function minutesText(ms: number): string {
  const tenths = Math.round(ms / 100)
  const [hours, minutes, rest] = [Math.floor(tenths / 36_000), Math.floor(tenths / 600) % 60, tenths % 600]
  const text = `${pad(minutes)}:${pad(Math.floor(rest / 10))}.${rest % 10}`
  return hours > 0 ? `${pad(hours)}:${text}` : text
}

/** `00:00:41` – hours, minutes and seconds; days in front where there are any. */
export function ageText(ms: number): string {
  const total = Math.max(0, Math.round(ms / 1000))
  const days = Math.floor(total / 86_400)
  const text = `${pad(Math.floor(total / 3600) % 24)}:${pad(Math.floor(total / 60) % 60)}:${pad(total % 60)}`
  return days > 0 ? `${days} d ${text}` : text
}

const pad = (value: number) => String(value).padStart(2, '0')

/** The line a person can quote. It never says more than what was measured. */
export function quoteOf(record: Omit<DrillRecord, 'quote'>): string {
  const subject = record.guest.replace('/', ' ').replace(/^vm/, 'VM').replace(/^ct/, 'CT')
  const age = record.dataAgeMs === undefined ? '' : `; data from ${ageText(record.dataAgeMs)} before now`
  if (record.proven && record.recoveryTimeMs !== undefined) {
    return `${subject} proven to ${record.reached}: ${achievement(record.reached)} in ${minutesText(record.recoveryTimeMs)}${age}`
  }
  if (record.proven) return `${subject} proven to ${record.reached}: ${achievement(record.reached)}${age}`
  const failed = record.verdicts.find(({ held }) => !held)
  const reached = record.reached === undefined ? 'nothing' : record.reached
  return `${subject} NOT proven: reached ${reached} of ${record.wanted}; ${failed ? `${failed.level} failed: ${failed.found}` : 'the drill did not finish'}${age}`
}

function achievement(reached: Level | undefined): string {
  switch (reached) {
    case 'L6':
    case 'L5':
      return 'restored, booted and answering'
    case 'L4':
    case 'L3':
      return 'restored and booted'
    case 'L2':
      return 'restored'
    default:
      return 'verified'
  }
}
