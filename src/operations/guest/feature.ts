/** What can be made of a guest, asked before anybody tries. */
import { isFault, missing } from '#base/fault.ts'
import { splitVolumeId, type VolumeId } from '#base/ids.ts'
import { type GuestConfig, isTemplate } from '#guests/config.ts'
import { drivesOf, wishOf } from '#guests/qemu/drive.ts'
import type { StorageService } from '#storage/service.ts'
import { diskVolumes } from './snapshot-disks.ts'

export type Feature = 'snapshot' | 'clone' | 'copy'

/** `clone` is a linked one. @throws Fault `missing` for a snapshot that is not there */
export async function hasFeature(
  storage: StorageService,
  { options, snapshots = {} }: Pick<GuestConfig, 'options' | 'snapshots'>,
  feature: Feature,
  snapshot?: string,
): Promise<boolean> {
  const kept = snapshot === undefined ? undefined : snapshots[snapshot]
  if (snapshot !== undefined && !kept) throw missing('snapshot', snapshot)
  if (drivesOf(options).some((drive) => !drive.isCdrom && wishOf(drive).kind === 'path')) return false
  const volumes = diskVolumes(kept?.options ?? options).map(({ volid }) => volid)
  switch (feature) {
    case 'copy':
      return true
    case 'clone':
      return kept === undefined && isTemplate(options) && (await every(volumes, (volid) => links(storage, volid)))
    case 'snapshot':
      return !isTemplate(options) && (await every(volumes, (volid) => holdsSnapshots(storage, volid)))
    default:
      return feature satisfies never
  }
}

async function links(storage: StorageService, volid: VolumeId): Promise<boolean> {
  return storage.featuresOf(await storage.get(splitVolumeId(volid).storage)).linkedClones
}

async function holdsSnapshots(storage: StorageService, volid: VolumeId): Promise<boolean> {
  try {
    await storage.snapshots(volid)
    return true
  } catch (fault) {
    if (isFault(fault, 'failed')) return false
    throw fault
  }
}

async function every(volumes: readonly VolumeId[], holds: (volid: VolumeId) => Promise<boolean>): Promise<boolean> {
  for (const volid of volumes) if (!(await holds(volid))) return false
  return true
}
