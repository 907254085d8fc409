/**
 * Brings one disk of a backup back to a guest that is there: beside its disks, as an unused one, or in the place of one,
 * which becomes unused.
 *
 * Nothing of the guest is touched before the new disk is whole, and nothing is ever destroyed: whoever needs a few files
 * of yesterday, or wants to compare, attaches it and looks.
 */
import { formatSize, rateOfLimit } from '#base/bytes.ts'
import { Fault, invalid } from '#base/fault.ts'
import { asVmid, asVolumeId } from '#base/ids.ts'
import type { BackupReader } from '#datastore/restore/reader.ts'
import { type GuestConfig, isTemplate, type Options, takeBack } from '#guests/config.ts'
import { planChange, withUnused } from '#guests/qemu/change.ts'
import { driveNameParts, driveOf, isCdrom, isFirmwareDrive, printDrive } from '#guests/qemu/drive.ts'
import type { Services } from '#services.ts'
import { operation } from '#tasks/operation.ts'
import { isForeignArchive } from '../backup/archive-file.ts'
import { storedOptions } from '../backup/guest-conf.ts'
import { type RestoredVolume, restoreDisks } from '../backup/restore-disks.ts'
import { aboutOneGuest } from './one-guest.ts'
import { freeNewVolumes, volumesOf } from './volumes.ts'

export interface RestoreDiskOfGuest {
  /** Guest that gets the disk; the backup may be that of another one. */
  readonly vmid: number
  /** Volume id of a backup in a datastore. */
  readonly archive: string
  /** Name of the disk in the backup: `scsi1`. */
  readonly disk: string
  /** Drive it becomes; without one it is unused. */
  readonly drive?: string | undefined
  /** Where it goes; without one, where it was. */
  readonly storage?: string | undefined
  /** KiB per second; 0 for no limit. */
  readonly bwlimit?: number | undefined
}

export type RestoreDiskDeps = Pick<Services, 'settings' | 'host' | 'guests' | 'storage' | 'backup'>

export const restoreDiskOfGuest = operation<RestoreDiskOfGuest, RestoreDiskDeps>('qmrestoredisk', aboutOneGuest)
  .step('check', {
    do: async ({ params, deps }) => {
      const vmid = asVmid(params.vmid)
      if (isForeignArchive(params.archive)) {
        throw invalid({ archive: 'only from a backup of a datastore: an archive is restored whole' })
      }
      await deps.guests.requireUnlocked(vmid)
      const config = await deps.guests.config(vmid, 'qemu')
      requireReceiver(config, params)
      await using reader = await deps.backup.open(asVolumeId(params.archive))
      requireDisk(reader, params)
      const stored = (await storedOptions(reader))[params.disk]
      return { before: config.options, stored, volumes: await volumesOf(deps.storage, vmid) }
    },
  })
  .step('disk', {
    do: async ({ params, deps, log, progress, signal }) => {
      const { archive, disk, storage, bwlimit } = params
      await using reader = await deps.backup.open(asVolumeId(archive))
      log(`restoring ${disk} of ${archive} (data from ${reader.manifest.pointInTime})`)
      const { disks } = await restoreDisks({
        reader,
        only: disk,
        vmid: asVmid(params.vmid),
        storage,
        services: deps,
        rateBytesPerSecond: rateOfLimit(bwlimit),
        log,
        signal,
        onProgress: (name, fraction, doneBytes) => progress(`write ${name}`, fraction, doneBytes),
      })
      const [restored] = disks
      if (!restored) throw new Error(`${disk} was not restored`)
      return restored
    },
    undo: async ({ params, deps, done }) => {
      if (!done.check) return
      await freeNewVolumes(deps, asVmid(params.vmid), done.check.volumes)
      await deps.storage.sweep()
    },
  })
  .step('config', {
    do: async ({ params, deps, done, log }) => {
      const { check, disk } = done
      const written = await withDisk(deps, params, { check, disk })
      await deps.guests.changeConfig(asVmid(params.vmid), (now) => takeBack(now, written, check.before))
      log(`${disk.volid} is ${params.drive === undefined ? 'an unused disk' : `drive ${params.drive}`} of the guest`)
    },
    undo: async ({ params, deps, done: { check, disk } }) => {
      if (!check || !disk) return
      const written = await withDisk(deps, params, { check, disk })
      await deps.guests.changeConfig(asVmid(params.vmid), (now) => takeBack(now, check.before, written))
    },
  })

interface Restored {
  readonly disk: RestoredVolume
  /** The guest's options before, and the drive as the backup has it. */
  readonly check: { readonly before: Options; readonly stored?: string | undefined }
}

function requireReceiver({ options, running }: GuestConfig, { vmid, disk, drive }: RestoreDiskOfGuest): void {
  if (isTemplate(options)) throw new Fault('conflict', `VM ${vmid} is a template, which gets no more disks`)
  if (drive === undefined) return
  if (!driveNameParts(drive)) throw invalid({ drive: `'${drive}' is no drive: it is one as scsi1 or virtio0` })
  if (isFirmwareDrive(drive) && drive !== disk) {
    throw invalid({ drive: `'${drive}' holds what the firmware keeps: only ${drive} of a backup can take its place` })
  }
  if (isCdrom(options[drive] ?? '')) throw invalid({ drive: `'${drive}' holds a disc` })
  if (running) {
    throw new Fault('conflict', `drive '${drive}' cannot be restored while VM ${vmid} runs`, {
      remedy: 'Stop it first, or leave out the drive: the disk is unused then, and can be attached.',
    })
  }
}

function requireDisk({ head, manifest }: BackupReader, { archive, disk }: RestoreDiskOfGuest): void {
  if (head.point.type !== 'vm') {
    throw invalid({ archive: `'${archive}' is the backup of a container, not of a virtual machine` })
  }
  const names = manifest.disks.map(({ name }) => name)
  if (!names.includes(disk)) throw invalid({ disk: `the backup holds ${names.join(', ') || 'no disk'}, not '${disk}'` })
}

/** The guest's options with the restored disk among them; one it takes the place of is unused. */
async function withDisk(
  { guests }: RestoreDiskDeps,
  { vmid, drive }: RestoreDiskOfGuest,
  { disk, check: { before, stored } }: Restored,
): Promise<Options> {
  const { volid, sizeBytes } = disk
  if (drive === undefined) return withUnused(before, volid)
  const isSameBus = driveNameParts(drive)?.bus === driveNameParts(disk.drive)?.bus
  // As the one it takes the place of; where there is none, as it was itself.
  const model = before[drive] ?? (isSameBus ? stored : undefined) ?? volid
  const text = printDrive(driveOf(drive, model), { file: volid, size: formatSize(sizeBytes), format: undefined })
  const config = { ...(await guests.config(asVmid(vmid), 'qemu')), options: before }
  return planChange(asVmid(vmid), config, { set: { [drive]: text }, delete: [], revert: [] }).options
}
