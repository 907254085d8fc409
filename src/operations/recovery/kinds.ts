/** Whose drill it is, by the restore point. */
import { Fault } from '#base/fault.ts'
import { drilledContainer } from './container.ts'
import type { Drilled } from './drilled.ts'
import { drilledMachine } from './machine.ts'

/** @param guest `vm/100` or `ct/101`, as restore points name it. @throws Fault `invalid` for anything else */
export function drilledOf(guest: string): Drilled {
  if (guest.startsWith('vm/')) return drilledMachine
  if (guest.startsWith('ct/')) return drilledContainer
  throw new Fault('invalid', `'${guest}' is no guest that can be drilled`)
}
