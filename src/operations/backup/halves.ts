/** The half of a backup that is a kind's own, by kind. */
import type { GuestKind } from '#guests/kind.ts'
import type { BackupHalf } from './half.ts'
import { containerHalf } from './container-half.ts'
import { machineHalf } from './machine-half.ts'

const halves: Readonly<Record<GuestKind, BackupHalf>> = { qemu: machineHalf, lxc: containerHalf }

export function halfFor(kind: GuestKind): BackupHalf {
  return halves[kind]
}
