/** The lines of a backup's log that other tools look for, in the spelling they look for. */
import type { BackupGuests } from './run.ts'

/** `2026-01-31 12:00:00`, as the node's clock on the wall shows it. */
export function wallTime(ms: number): string {
  const date = new Date(ms)
  const two = (number: number) => String(number).padStart(2, '0')
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join('-')
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':')}`
}

/** `00:01:40` */
export function clockTime(ms: number): string {
  const total = Math.floor(Math.max(0, ms) / 1000)
  const parts = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60]
  return parts.map((part) => String(part).padStart(2, '0')).join(':')
}

/** The job as a command. */
export function commandOf(job: BackupGuests): string {
  const given: readonly (readonly [string, string | number | undefined])[] = [
    ['all', job.all === true ? 1 : undefined],
    ['exclude', job.exclude?.length ? job.exclude.join(',') : undefined],
    ['mode', job.mode],
    ['storage', job.storage],
    ['bwlimit', job.bwlimit || undefined],
    ['fleecing', job.fleecingStorage === undefined ? undefined : `enabled=1,storage=${job.fleecingStorage}`],
    ['job-id', job.jobId],
    ['notes-template', job.notesTemplate === undefined ? undefined : `'${job.notesTemplate}'`],
    ['protected', job.protected === true ? 1 : undefined],
    ['script', job.script],
  ]
  const options = given.flatMap(([name, value]) => (value === undefined ? [] : [`--${name} ${value}`]))
  return ['vzdump', ...job.vmids, ...options].join(' ')
}
