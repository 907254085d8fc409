/**
 * The files of a container where the machine can see them: a folder as it is, an image mounted for as long as the
 * container runs.
 *
 * Mounts lie below one folder per guest, so whoever cleans up finds them all without being told, also after a crash.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { KiB } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import { checkExt4, ext4BytesOf, growExt4 } from '#host/ext4.ts'
import type { Host } from '#host/host.ts'
import { makeDirectory } from '#host/files.ts'
import { mountLoop, mountPoints, unmountBelow } from '#host/mount.ts'
import type { Options } from '../config.ts'
import type { GuestStorage } from '../needs.ts'
import { type Mount, mountedVolumes, mountsOf, wishOf } from './mountpoint.ts'

export interface VolumeNeeds {
  readonly host: Host
  readonly storage: Pick<GuestStorage, 'location'>
  readonly runDir: string
}

/** Less than the smallest growth anybody can ask for. */
const oddEndBytes = 512 * KiB

/** Where a guest's images are mounted. */
export function mountsDirOf(runDir: string, vmid: Vmid): string {
  return join(runDir, 'mounts', String(vmid))
}

/** Where each of the guest's mounts is on the node, once that is mounted. @throws Fault `missing`, `failed` */
export async function openVolumes(
  needs: VolumeNeeds,
  vmid: Vmid,
  options: Options,
): Promise<Readonly<Record<string, string>>> {
  const places: Record<string, string> = {}
  for (const mount of mountsOf(options)) places[mount.name] = await openVolume(needs, vmid, mount)
  return places
}

async function openVolume({ host, storage, runDir }: VolumeNeeds, vmid: Vmid, mount: Mount): Promise<string> {
  const wish = wishOf(mount)
  if (wish.kind === 'path') return wish.path
  if (wish.kind === 'allocate') throw new Fault('conflict', `${mount.name} of CT ${vmid} has no volume yet`)
  const { path, format, sizeBytes } = await storage.location(wish.volid)
  if (format === 'subvol') return path
  if (format !== 'raw') throw new Fault('conflict', `${mount.name} of CT ${vmid}: '${format}' images cannot be mounted`)
  const target = join(mountsDirOf(runDir, vmid), mount.name)
  // On the way to it others see nothing, and pass: the container's root is nobody here.
  await makeDirectory(join(runDir, 'mounts'))
  await makeDirectory(mountsDirOf(runDir, vmid))
  if (!(await mountPoints()).includes(target)) {
    await followImage(host, path, sizeBytes)
    const { mountoptions, acl } = mount.values
    const more = typeof mountoptions === 'string' ? mountoptions.split(';') : []
    const options = ['rw', 'nodev', ...more, ...(acl === undefined ? [] : [acl === true ? 'acl' : 'noacl'])]
    await mountLoop(host, { image: path, target, options })
  }
  return target
}

/** What is smaller than its image by more than an odd end could not grow under what ran in it, and grows now. */
async function followImage(host: Host, path: string, sizeBytes: number): Promise<void> {
  const bytes = await ext4BytesOf(path)
  if (bytes === undefined || sizeBytes - bytes < oddEndBytes) return
  await checkExt4(host, path)
  await growExt4(host, path)
}

/** Where the images of a running container are mounted. */
export async function mountedImages(runDir: string, vmid: Vmid, options: Options): Promise<string[]> {
  const isImage = ({ volid }: { readonly volid: VolumeId }) => volid.endsWith('.raw')
  const targets = mountedVolumes(options)
    .filter(isImage)
    .map(({ name }) => join(mountsDirOf(runDir, vmid), name))
  const mounted = await mountPoints()
  return targets.filter((target) => mounted.includes(target))
}

/** Undoes `openVolumes`. Idempotent. */
export async function closeVolumes({ host, runDir }: Omit<VolumeNeeds, 'storage'>, vmid: Vmid): Promise<void> {
  const directory = mountsDirOf(runDir, vmid)
  await unmountBelow(host, directory)
  // Not one folder deeper: whatever lies there would be a guest's own.
  if ((await mountPoints()).some((path) => path.startsWith(`${directory}/`))) return
  await rm(directory, { recursive: true, force: true })
}
