/** Notes, protection and what the last check found: the facts about a backup that may change, in a file beside it. */
import { Fault } from '#base/fault.ts'
import { checkProperties } from '#base/schema/check.ts'
import { boolean, integer, optional, string } from '#base/schema/schema.ts'
import { readIfPresent } from '#host/files.ts'
import { type BackupId, printBackupId } from '#datastore/backup-id.ts'
import type { Layout } from './layout.ts'
import { unseal } from '#datastore/sealed.ts'

export interface Marks {
  readonly notes?: string | undefined
  readonly protected?: boolean | undefined
  /** When it was last checked in full, in seconds since 1970. */
  readonly verified?: number | undefined
  /** What that check found damaged. */
  readonly damage?: string | undefined
}

const properties = {
  notes: optional(string({ maxLength: 65_536 })),
  protected: optional(boolean()),
  verified: optional(integer({ minimum: 0, maximum: 253_402_300_799 })),
  damage: optional(string({ maxLength: 4096 })),
}

/** @throws Fault `damaged` */
export async function readMarks(layout: Layout, id: BackupId): Promise<Marks> {
  const text = await readIfPresent(layout.marks(id))
  if (text === undefined) return {}
  const name = `the notes of backup ${printBackupId(id)}`
  const checked = checkProperties(properties, unseal(text, name) as Record<string, unknown>)
  if (!checked.ok) throw new Fault('damaged', `${name} are damaged`)
  return checked.values
}
