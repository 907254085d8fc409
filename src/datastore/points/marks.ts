/** What may change about a backup: notes, protection, what the last full check found. */
import { Fault } from '#base/fault.ts'
import { checkProperties } from '#base/schema/check.ts'
import { boolean, integer, optional, string, type StaticProperties } from '#base/schema/schema.ts'
import { seal, unseal } from '../sealed.ts'
import { pathOfPoint, type RestorePoint } from '../point.ts'

const properties = {
  notes: optional(string({ maxLength: 8_192 })),
  protected: optional(boolean()),
  /** Seconds since 1970. */
  verified: optional(integer({ minimum: 0, maximum: 253_402_300_799 })),
  damage: optional(string({ maxLength: 1_024 })),
  /** What was unusual about its change. */
  hint: optional(string({ maxLength: 1_024 })),
}

export type Marks = StaticProperties<typeof properties>

export function marksName(point: RestorePoint): string {
  return `marks/${pathOfPoint(point)}`
}

export function printMarks(marks: Marks): string {
  const set = Object.entries(marks).filter(([, value]) => value !== undefined)
  return seal(Object.fromEntries(set) as Record<string, string | number | boolean>)
}

/** @throws Fault `damaged` */
export function parseMarks(text: string, name: string): Marks {
  const checked = checkProperties(properties, Object(unseal(text, `the marks of ${name}`)) as Record<string, unknown>)
  if (!checked.ok) throw new Fault('damaged', `the marks of ${name} are damaged`)
  return checked.values
}
