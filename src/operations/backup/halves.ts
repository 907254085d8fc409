/** The half of a backup that is a kind's own, by kind; loaded when a guest of that kind has its turn. */
import { loaderFor } from '#base/on-demand.ts'
import type { GuestKind } from '#guests/kind.ts'
import type * as containers from './container-half.ts'
import type { BackupHalf } from './half.ts'
import type * as machines from './machine-half.ts'

const load = loaderFor(import.meta.url)

export function halfFor(kind: GuestKind): BackupHalf {
  return kind === 'lxc'
    ? load<typeof containers>('./container-half.ts').containerHalf
    : load<typeof machines>('./machine-half.ts').machineHalf
}
