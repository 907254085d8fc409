/** Restores a restore point as a scratch guest: its disks under new names, its configuration cut down to what may boot beside the original. */
import { asVmid } from '#base/ids.ts'
import type { BackupReader } from '#backup/reader.ts'
import type { PhaseTimes } from '#recovery/record.ts'
import type { ClimbContext } from './drill-climb.ts'
import type { RestoredDiskFacts } from './drill.ts'

export interface RestoredScratch {
  readonly name: string | null
  readonly config: Readonly<Record<string, string>>
  readonly hasAgent: boolean
  readonly disks: readonly RestoredDiskFacts[]
  readonly phases: Required<Pick<PhaseTimes, 'fetch' | 'write'>>
}

export function restoreScratch(context: ClimbContext, reader: BackupReader): Promise<RestoredScratch> {
  throw new Error(`not yet ${asVmid(context.done.point.scratch)} ${reader.manifest.time}`)
}
