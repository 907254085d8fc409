/**
 * The images a running guest's old blocks are kept in while a backup reads: one per disk, thin, beside the
 * disk or on the storage the caller names. Removed by looking for their names.
 */
import { MiB } from '#base/bytes.ts'
import { asVolumeId, splitVolumeId, type Vmid } from '#base/ids.ts'
import type { GuestService } from '#guests/service.ts'
import type { StorageService } from '#storage/service.ts'
import { volumesOf } from '../guest/volumes.ts'
import type { GuestDisk } from './guest-disks.ts'
import type { HeldDisk } from './point-in-time.ts'

export interface FleecingDeps {
  readonly storage: StorageService
  readonly guests: GuestService
}

/** Asked for before a backup starts: a guest that writes little needs no more. */
const roomBytes = 64 * MiB

/** @throws Fault `exhausted`; `invalid` when the storage cannot hold qcow2 images */
export async function makeFleecing(
  { storage, guests }: FleecingDeps,
  vmid: Vmid,
  disks: readonly GuestDisk[],
  target?: string,
): Promise<HeldDisk[]> {
  const held: HeldDisk[] = []
  for (const [number, { drive, volid }] of disks.entries()) {
    const { sizeBytes } = await storage.describe(volid)
    // The guest's QEMU lays it out: a process for that would cost more than all it is asked for a backup.
    const image = await storage.allocateBlank({
      storage: target ?? splitVolumeId(volid).storage,
      vmid,
      sizeBytes,
      name: `vm-${vmid}-fleece-${number}`,
      neededBytes: Math.min(sizeBytes, roomBytes),
    })
    await storage.giveTo(image.volid, guests.uidOf(vmid))
    held.push({ drive, sizeBytes, fleecePath: image.path })
  }
  return held
}

export async function removeFleecing({ storage }: Pick<FleecingDeps, 'storage'>, vmid: Vmid): Promise<void> {
  for (const volid of await volumesOf(storage, vmid)) {
    if (new RegExp(`^${vmid}/vm-${vmid}-fleece-\\d+\\.qcow2$`).test(splitVolumeId(volid).name)) {
      await storage.free(asVolumeId(volid))
    }
  }
}
