/**
 * Snapshots on the disks of one guest, wherever they are open just now: in its QEMU, which is asked, or nowhere, and
 * then the storage does it. Some storages do it in either case. Volumes of containers are always the storage's.
 *
 * Who may run beside whom: the caller holds the guest's lock, so a guest neither starts nor stops meanwhile by any
 * task of ours. One that ends by itself is found by looking again.
 */
import { isFault } from '#base/fault.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import type { GuestConfig, Options, Snapshot } from '#guests/config.ts'
import { driveNameParts, volumesIn } from '#guests/qemu/drive.ts'
import { dropSnapshot, endSave } from '#guests/qemu/snapshot.ts'
import type { DiskDeps } from './resize.ts'

export type OpenDisk = {
  /** `scsi0` of the running guest. */
  readonly drive: string
  readonly volid: VolumeId
}

/** Volumes in drives; not those that are unused. */
export function diskVolumes(options: Options): OpenDisk[] {
  return volumesIn(options).flatMap(({ name, volid }) => (driveNameParts(name) ? [{ drive: name, volid }] : []))
}

/** Every volume that a snapshot holds content of. */
export function volumesOfSnapshot({ options, memory }: Snapshot): VolumeId[] {
  const all = [...diskVolumes(options), ...diskVolumes(memory?.options ?? {})]
  return [...new Set(all.map(({ volid }) => volid))]
}

/** Which of the volumes the guest's QEMU has open. */
export function openAmong(
  { running }: Pick<GuestConfig, 'running'>,
  volumes: readonly VolumeId[],
): { open: OpenDisk[]; closed: VolumeId[] } {
  const open = diskVolumes(running ?? {}).filter(({ volid }) => volumes.includes(volid))
  return { open, closed: volumes.filter((volid) => open.every((disk) => disk.volid !== volid)) }
}

/** Whose hands take a snapshot of a disk that is open. */
export async function takersOf(
  { storage }: Pick<DiskDeps, 'storage'>,
  open: readonly OpenDisk[],
): Promise<{ byGuest: OpenDisk[]; byStorage: OpenDisk[] }> {
  const [byGuest, byStorage]: [OpenDisk[], OpenDisk[]] = [[], []]
  for (const disk of open) {
    const { isTakenOpen } = await storage.snapshots(disk.volid)
    ;(isTakenOpen ? byStorage : byGuest).push(disk)
  }
  return { byGuest, byStorage }
}

/** Afterwards none of the volumes has the snapshot. Harmless when none had it, and when a volume is gone. */
export async function dropEverywhere(
  { guests, storage }: DiskDeps,
  vmid: Vmid,
  volumes: readonly VolumeId[],
  tag: string,
): Promise<void> {
  const { open, closed } = openAmong(await guests.config(vmid, 'any'), volumes)
  const { byGuest, byStorage } = await takersOf({ storage }, open)
  if (open.length > 0) {
    await using monitor = await guests.qmp(vmid, 'long')
    await endSave(monitor)
    const drives = byGuest.map(({ drive }) => drive)
    await dropSnapshot(monitor, drives, tag)
  }
  for (const volid of [...closed, ...byStorage.map((disk) => disk.volid)])
    await ifThere(async () => (await storage.snapshots(volid)).drop(tag))
}

/** How many of the volumes have the snapshot. */
export async function countOf(
  { storage }: Pick<DiskDeps, 'storage'>,
  volumes: readonly VolumeId[],
  tag: string,
): Promise<number> {
  let count = 0
  for (const volid of volumes) {
    await ifThere(async () => {
      if ((await (await storage.snapshots(volid)).list()).includes(tag)) count += 1
    })
  }
  return count
}

async function ifThere(act: () => Promise<void>): Promise<void> {
  try {
    await act()
  } catch (fault) {
    if (!isFault(fault, 'missing')) throw fault
  }
}
