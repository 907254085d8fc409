/** A task as clients see it: items of lists, status, and which of them a filter means. */
import type { FaultKind } from '#base/fault.ts'
import type { UpidText } from '#base/ids.ts'
import type { TaskEnd, TaskProgress } from './archive.ts'
import { parseUpid } from './upid.ts'

interface TaskIdentity {
  readonly upid: UpidText
  readonly node: string
  readonly pid: number
  /** Start of the process in clock ticks after boot. */
  readonly pstart: number
  /** Seconds since 1970. */
  readonly starttime: number
  readonly type: string
  readonly id: string
  /** `user@realm`, also when a token of that user started it. */
  readonly user: string
  readonly tokenid?: string
}

export interface TaskItem extends TaskIdentity {
  /** Seconds since 1970; absent while it runs. */
  readonly endtime?: number
  /** The exit status, or `RUNNING`. */
  readonly status: string
}

export interface TaskStatus extends TaskIdentity, TaskProgress {
  readonly status: 'running' | 'stopped'
  /** `OK`, `WARNINGS: n`, or the text of the error. Only when stopped. */
  readonly exitstatus?: string
  /** Kind of the fault it ended with, and what to do next. */
  readonly kind?: FaultKind
  readonly remedy?: string
}

export const statusTypes = ['ok', 'warning', 'error', 'unknown'] as const
export type StatusType = (typeof statusTypes)[number]

export interface TaskFilter {
  /** Finished ones (the default), running ones, or both. */
  readonly source?: 'archive' | 'active' | 'all' | undefined
  readonly start?: number | undefined
  /** Default 50. */
  readonly limit?: number | undefined
  /** A part of the user's name. */
  readonly userfilter?: string | undefined
  readonly typefilter?: string | undefined
  readonly vmid?: number | undefined
  /** Only those that did not end well. */
  readonly errors?: boolean | undefined
  /** Bounds of the start time, in seconds since 1970. */
  readonly since?: number | undefined
  readonly until?: number | undefined
  readonly statusfilter?: readonly string[] | undefined
  /** Only what this user or token may see: a user its own and its tokens' tasks, a token its own. */
  readonly visibleTo?: string | undefined
}

export function toItem(upid: UpidText, end: TaskEnd | undefined): TaskItem {
  if (!end) return { ...identityOf(upid), status: 'RUNNING' }
  return { ...identityOf(upid), endtime: Math.floor(end.endedAtMs / 1000), status: end.exitstatus }
}

export function toStatus(upid: UpidText, end: TaskEnd | undefined, progress: TaskProgress): TaskStatus {
  const identity = identityOf(upid)
  if (end) {
    const { exitstatus, kind, remedy } = end
    return {
      ...identity,
      status: 'stopped',
      exitstatus,
      ...(kind ? { kind } : {}),
      ...(remedy === undefined ? {} : { remedy }),
    }
  }
  return { ...identity, status: 'running', ...progress }
}

function identityOf(upid: UpidText): TaskIdentity {
  const parts = parseUpid(upid)
  const [user = '', tokenid] = parts.user.split('!')
  return { upid, ...parts, user, ...(tokenid === undefined ? {} : { tokenid }) }
}

/** Whether a user (`user@realm`) or token (`user@realm!token`) owns the task. */
export function isOwnedBy({ user, tokenid }: Pick<TaskIdentity, 'user' | 'tokenid'>, authId: string): boolean {
  return authId === user || (tokenid !== undefined && authId === `${user}!${tokenid}`)
}

export function statusTypeOf(exitstatus: string): StatusType {
  if (exitstatus === 'OK') return 'ok'
  if (exitstatus === 'unexpected status') return 'unknown'
  return /^WARNINGS: \d+$/.test(exitstatus) ? 'warning' : 'error'
}

export function isMeant(item: TaskItem, filter: TaskFilter): boolean {
  const { source = 'archive', userfilter, typefilter, vmid, since, until, visibleTo } = filter
  const isRunning = item.endtime === undefined
  if (source !== 'all' && isRunning !== (source === 'active')) return false
  if (visibleTo !== undefined && !isOwnedBy(item, visibleTo)) return false
  if (userfilter !== undefined && !item.user.toLowerCase().includes(userfilter.toLowerCase())) return false
  if (typefilter !== undefined && item.type !== typefilter) return false
  if (vmid !== undefined && item.id !== String(vmid)) return false
  if (since !== undefined && item.starttime < since) return false
  if (until !== undefined && item.starttime > until) return false
  return hasWantedOutcome(item, isRunning, filter)
}

/** A running task has no outcome yet. */
function hasWantedOutcome(item: TaskItem, isRunning: boolean, { errors, statusfilter }: TaskFilter): boolean {
  if (errors && (isRunning || item.status === 'OK')) return false
  return statusfilter === undefined || (!isRunning && statusfilter.includes(statusTypeOf(item.status)))
}
