/** What can be made of a guest, asked before anybody tries. */
import { isFault } from '#base/fault.ts'
import { splitVolumeId, type VolumeId } from '#base/ids.ts'
import { type GuestConfig, isTemplate, type Options } from '#guests/config.ts'
import type { GuestKind } from '#guests/kind.ts'
import { mountedVolumes, mountsOf, wishOf as wishOfMount } from '#guests/lxc/mountpoint.ts'
import { drivesOf, wishOf } from '#guests/qemu/drive.ts'
import type { StorageService } from '#storage/service.ts'
import { isMountableLinked } from './clone-container.ts'
import { requireSnapshot } from './snapshot-config.ts'
import { diskVolumes } from './snapshot-disks.ts'

export type Feature = 'snapshot' | 'clone' | 'copy'

/** What the question means for a kind of guest. */
interface Asked {
  readonly volumesOf: (options: Options) => VolumeId[]
  /** Features a guest with a file or folder of the node does not have. */
  readonly notWithPaths: readonly Feature[]
  readonly hasPaths: (options: Options) => boolean
  readonly links: (storage: StorageService, volid: VolumeId) => Promise<boolean>
}

const machines: Asked = {
  volumesOf: (options) => diskVolumes(options).map(({ volid }) => volid),
  notWithPaths: ['snapshot', 'clone', 'copy'],
  hasPaths: (options) => drivesOf(options).some((drive) => !drive.isCdrom && wishOf(drive).kind === 'path'),
  links,
}

/** A folder of the node is the same for a container and its clones. */
const containers: Asked = {
  volumesOf: (options) => mountedVolumes(options).map(({ volid }) => volid),
  notWithPaths: ['snapshot'],
  hasPaths: (options) => mountsOf(options).some((mount) => wishOfMount(mount).kind === 'path'),
  links: isMountableLinked,
}

/** `clone` is a linked one. @throws Fault `missing` for a snapshot that is not there */
export async function hasFeature(
  storage: StorageService,
  config: Pick<GuestConfig, 'options' | 'snapshots'>,
  {
    feature,
    snapshot,
    kind = 'qemu',
  }: { readonly feature: Feature; readonly snapshot?: string | undefined; readonly kind?: GuestKind },
): Promise<boolean> {
  const asked = kind === 'lxc' ? containers : machines
  const kept = snapshot === undefined ? undefined : requireSnapshot(config, snapshot)
  if (asked.notWithPaths.includes(feature) && asked.hasPaths(config.options)) return false
  const volumes = asked.volumesOf(kept?.options ?? config.options)
  const isBase = isTemplate(config.options)
  switch (feature) {
    case 'copy':
      return true
    case 'clone':
      return kept === undefined && isBase && (await every(volumes, (volid) => asked.links(storage, volid)))
    case 'snapshot':
      return !isBase && (await every(volumes, (volid) => holdsSnapshots(storage, volid)))
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
