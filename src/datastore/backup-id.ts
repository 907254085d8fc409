/**
 * The name of a backup inside its datastore: `vm/100/2026-11-20T10:00:00Z` – type, guest, moment (UTC,
 * whole seconds). It is a path below `backups/`, so parsing is strict: nothing else may become a path.
 */
import { Fault, invalid } from '#base/fault.ts'

export type BackupType = 'vm' | 'ct' | 'host'

export interface BackupId {
  readonly type: BackupType
  /** The guest's number, or a host's name. */
  readonly id: string
  /** Seconds since 1970. */
  readonly time: number
}

const pattern = /^(vm|ct|host)\/([A-Za-z0-9][A-Za-z0-9._-]{0,62})\/(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z)$/

export function printBackupId({ type, id, time }: BackupId): string {
  return `${type}/${id}/${printTime(time)}`
}

export function printTime(time: number): string {
  return `${new Date(time * 1000).toISOString().slice(0, 19)}Z`
}

/** @throws Fault `invalid` */
export function parseBackupId(text: string): BackupId {
  const parsed = tryParseBackupId(text)
  if (parsed) return parsed
  throw invalid({ volume: `invalid format - '${text}' is not a backup such as vm/100/2026-11-20T10:00:00Z` })
}

export function tryParseBackupId(text: string): BackupId | undefined {
  const [, type, id = '', moment = ''] = pattern.exec(text) ?? []
  const time = Date.parse(moment) / 1000
  if ((type !== 'vm' && type !== 'ct' && type !== 'host') || !Number.isSafeInteger(time)) return undefined
  // A 31st of February parses as a day in March; only the text that prints back is a name.
  return printTime(time) === moment ? { type, id, time } : undefined
}

/** As `printBackupId`. @throws Fault `invalid` for what could not be a name again later */
export function printChecked(id: BackupId): string {
  const printed = printBackupId(id)
  if (tryParseBackupId(printed)) return printed
  throw new Fault('invalid', `'${id.type}/${id.id}' at ${id.time} cannot be the name of a backup`)
}
