/** Which disks of a guest a backup holds, and why the others are left out. */
import type { VolumeId } from '#base/ids.ts'
import type { Options } from '#guests/config.ts'
import { drivesOf, wishOf } from '#guests/qemu/drive.ts'

export interface GuestDisk {
  /** `scsi0` */
  readonly drive: string
  readonly volid: VolumeId
}

export interface LeftOutDisk {
  readonly drive: string
  readonly reason: string
  /** Data that is nowhere else; not so for discs and for what the owner excluded. */
  readonly isSurprising: boolean
}

export function disksToBackUp(options: Options): { included: GuestDisk[]; leftOut: LeftOutDisk[] } {
  const [included, leftOut]: [GuestDisk[], LeftOutDisk[]] = [[], []]
  for (const drive of drivesOf(options)) {
    if (drive.isCdrom) continue
    const wish = wishOf(drive)
    if (drive.values.backup === false) {
      leftOut.push({ drive: drive.name, reason: 'excluded by backup=0', isSurprising: false })
    } else if (wish.kind === 'volume') {
      included.push({ drive: drive.name, volid: wish.volid })
    } else {
      leftOut.push({ drive: drive.name, reason: `'${drive.file}' is no volume of a storage`, isSurprising: true })
    }
  }
  return { included, leftOut }
}
