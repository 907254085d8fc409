/**
 * What a guest's TPM remembers, taken out of its file at one moment.
 *
 * The file is open in the TPM's own program, which makes it as short as what is in it; every copy has the full size, so
 * that disks of a backup and of a clone do not change their size from one moment to the next.
 */
import { open } from 'node:fs/promises'
import { tpmBytes, tpmDrive } from '#guests/qemu/tpm.ts'
import type { StorageService } from '#storage/service.ts'
import type { GuestDisk } from './guest-disks.ts'

export function isTpm({ drive }: GuestDisk): boolean {
  return drive === tpmDrive
}

/** The state by drive; the caller sees to it that the guest does not use its TPM meanwhile. */
export async function readTpmStates(
  { storage }: { readonly storage: Pick<StorageService, 'location'> },
  disks: readonly GuestDisk[],
): Promise<ReadonlyMap<string, Buffer>> {
  const states = new Map<string, Buffer>()
  for (const { drive, volid } of disks.filter(isTpm)) {
    await using file = await open((await storage.location(volid)).path, 'r')
    const state = Buffer.alloc(tpmBytes)
    await file.read(state, 0, tpmBytes, 0)
    states.set(drive, state)
  }
  return states
}
