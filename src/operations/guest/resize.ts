/**
 * Makes a disk larger, also while its guest runs.
 *
 * A disk that has grown cannot safely shrink: the guest may be using the new room already. So this is not taken back
 * but finished: whatever the size has become, the configuration is made to say it.
 */
import { formatSize, parseSize } from '#base/bytes.ts'
import { Fault, invalid, missing } from '#base/fault.ts'
import { asVmid, splitVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import { isTemplate, type Options, requireDigest } from '#guests/config.ts'
import { removeBitmaps } from '#guests/qemu/dirty-bitmap.ts'
import { nodeNameOf } from '#guests/qemu/drive-device.ts'
import { driveNameParts, driveOf, isFirmwareDrive, printDrive, volumeIn } from '#guests/qemu/drive.ts'
import type { GuestService } from '#guests/service.ts'
import type { StorageService } from '#storage/service.ts'
import { operation } from '#tasks/operation.ts'
import { aboutOneGuest } from './one-guest.ts'
import { openAmong } from './snapshot-disks.ts'

export interface ResizeDisk {
  readonly vmid: number
  /** `scsi0` */
  readonly disk: string
  /** `+5G` more, or `32G` in all. */
  readonly size: string
  readonly digest?: string | undefined
  readonly skipLock?: boolean | undefined
}

export interface DiskDeps {
  readonly guests: GuestService
  readonly storage: StorageService
}

export const resizeDisk = operation<ResizeDisk, DiskDeps>('qmresize', {
  upidType: 'resize',
  ...aboutOneGuest,
})
  .step('check', {
    do: async ({ params, deps }) => {
      const vmid = asVmid(params.vmid)
      if (params.skipLock !== true) await deps.guests.requireUnlocked(vmid)
      const config = await deps.guests.config(vmid)
      requireDigest(config, params.digest)
      if (isTemplate(config.options)) throw new Fault('conflict', `the disks of template ${vmid} are only read`)
      const volid = requireDisk(config.options, params.disk)
      if (isFirmwareDrive(params.disk)) throw invalid({ disk: `drive '${params.disk}' has the size it needs` })
      const nowBytes = (await deps.storage.describe(volid)).sizeBytes
      const isMore = params.size.startsWith('+')
      const sizeBytes = isMore ? nowBytes + parseSize(params.size.slice(1)) : parseSize(params.size)
      if (sizeBytes < nowBytes) {
        throw new Fault('failed', 'shrinking disks is not supported', {
          remedy: `Disk ${params.disk} has ${formatSize(nowBytes)}: ask for at least that.`,
        })
      }
      return { volid, nowBytes, sizeBytes }
    },
  })
  .step('disk', {
    do: async ({ params, deps, done, log }) => {
      const { volid, nowBytes, sizeBytes } = done.check
      await grow(deps, asVmid(params.vmid), volid, { nowBytes, sizeBytes })
      log(`${params.disk}: ${formatSize(nowBytes)} -> ${formatSize((await deps.storage.describe(volid)).sizeBytes)}`)
    },
    undo: async ({ params, deps, done }) => {
      if (done.check) await rememberSize(deps, asVmid(params.vmid), params.disk, done.check.volid)
    },
  })
  // No undo: the one before says what is.
  .step('config', {
    do: ({ params, deps, done }) => rememberSize(deps, asVmid(params.vmid), params.disk, done.check.volid),
  })

/** The volume a drive holds. @throws Fault `missing` in PVE's words */
export function requireDisk(options: Options, disk: string): VolumeId {
  const text = options[disk]
  const volid = text === undefined ? undefined : volumeIn(disk, text)
  if (volid === undefined) throw missing('disk', disk)
  return volid
}

async function grow(
  { guests, storage }: DiskDeps,
  vmid: Vmid,
  volid: VolumeId,
  { nowBytes, sizeBytes }: { readonly nowBytes: number; readonly sizeBytes: number },
): Promise<void> {
  // A drive that is to move at the next start is still open under its old name.
  const [opened] = openAmong(await guests.config(vmid), [volid]).open
  if (!opened) return storage.resize(volid, sizeBytes)
  if (sizeBytes === nowBytes) return undefined
  await storage.requireSpace(splitVolumeId(volid).storage, sizeBytes - nowBytes, `the growth of volume '${volid}'`)
  await using monitor = await guests.qmp(vmid, 'long')
  await removeBitmaps(monitor, opened.drive)
  await monitor.execute('block_resize', {
    'node-name': nodeNameOf(opened.drive),
    // In whole sectors, as any disk.
    size: Math.ceil(sizeBytes / 512) * 512,
  })
}

/** Writes the volume's true size wherever the drive still holds it. */
async function rememberSize({ guests, storage }: DiskDeps, vmid: Vmid, disk: string, volid: VolumeId): Promise<void> {
  const size = formatSize((await storage.describe(volid)).sizeBytes)
  const sized = (options: Options): Options => {
    const text = options[disk]
    if (text === undefined || !driveNameParts(disk) || volumeIn(disk, text) !== volid) return options
    return { ...options, [disk]: printDrive(driveOf(disk, text), { size }) }
  }
  await guests.changeConfig(vmid, sized)
  await guests.changeRunning(vmid, sized)
}
