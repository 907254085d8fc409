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
import type { Vmid } from '#base/ids.ts'
import { checkExt4, ext4BytesOf, growExt4 } from '#host/ext4.ts'
import type { Host } from '#host/host.ts'
import { makeDirectory } from '#host/files.ts'
import { bindMount, type MountRule, mountRules } from '#host/bind-mount.ts'
import { mountLoop, mountPoints, unmountBelow } from '#host/mount.ts'
import type { Options } from '../config.ts'
import type { GuestStorage } from '../needs.ts'
import { idsOfMount } from './mount-ids.ts'
import { type Mount, mountsOf, wishOf } from './mountpoint.ts'

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

/** The same, as the container is to see them: by their own rules, and with their own ids. Not for our own work. */
export async function seenVolumes(
  needs: Pick<VolumeNeeds, 'runDir'>,
  vmid: Vmid,
  { options, places }: { readonly options: Options; readonly places: Readonly<Record<string, string>> },
): Promise<Readonly<Record<string, string>>> {
  const seen: Record<string, string> = {}
  for (const mount of mountsOf(options)) {
    const place = places[mount.name] ?? ''
    seen[mount.name] = await underItsRules(needs, vmid, { mount, place, options })
  }
  return seen
}

async function openVolume({ host, storage, runDir }: VolumeNeeds, vmid: Vmid, mount: Mount): Promise<string> {
  const wish = wishOf(mount)
  if (wish.kind === 'path') return wish.path
  if (wish.kind === 'allocate') throw new Fault('conflict', `${mount.name} of CT ${vmid} has no volume yet`)
  const { path, format, sizeBytes } = await storage.location(wish.volid)
  if (format === 'subvol') return path
  if (format !== 'raw') throw new Fault('conflict', `${mount.name} of CT ${vmid}: '${format}' images cannot be mounted`)
  const target = await placeBelow(runDir, vmid, mount.name)
  if (!(await mountPoints()).includes(target)) {
    await followImage(host, path, sizeBytes)
    const { acl } = mount.values
    const options = ['rw', 'nodev', ...ofDisk(mount), ...(acl === undefined ? [] : [acl === true ? 'acl' : 'noacl'])]
    await mountLoop(host, { image: path, target, options })
  }
  return target
}

/** On the way to it others see nothing, and pass: the container's root is nobody here. */
async function placeBelow(runDir: string, vmid: Vmid, name: string): Promise<string> {
  for (const folder of [join(runDir, 'mounts'), mountsDirOf(runDir, vmid)]) await makeDirectory(folder)
  return join(mountsDirOf(runDir, vmid), name)
}

/** What a file system does with its disk, and so for all who see it. */
function ofDisk({ values }: Mount): string[] {
  return optionsOf(values).filter((one) => one === 'discard' || one === 'lazytime')
}

function optionsOf({ mountoptions }: Mount['values']): string[] {
  return typeof mountoptions === 'string' ? mountoptions.split(';') : []
}

/** Shown once more where the container sees it by rules of its own. */
async function underItsRules(
  { runDir }: Pick<VolumeNeeds, 'runDir'>,
  vmid: Vmid,
  { mount, place, options }: { readonly mount: Mount; readonly place: string; readonly options: Options },
): Promise<string> {
  const rules = optionsOf(mount.values).filter((one): one is MountRule => Object.hasOwn(mountRules, one))
  const ids = idsOfMount(options, mount.values.idmap)
  if (rules.length === 0 && ids === undefined) return place
  const target = await placeBelow(runDir, vmid, `${mount.name}.seen`)
  if ((await mountPoints()).includes(target)) return target
  await makeDirectory(target)
  await bindMount({ source: place, target, rules, ids })
  return target
}

/** What is smaller than its image by more than an odd end could not grow under what ran in it, and grows now. */
async function followImage(host: Host, path: string, sizeBytes: number): Promise<void> {
  const bytes = await ext4BytesOf(path)
  if (bytes === undefined || sizeBytes - bytes < oddEndBytes) return
  await checkExt4(host, path)
  await growExt4(host, path)
}

/** Undoes `openVolumes`. Idempotent. */
export async function closeVolumes({ host, runDir }: Omit<VolumeNeeds, 'storage'>, vmid: Vmid): Promise<void> {
  const directory = mountsDirOf(runDir, vmid)
  await unmountBelow(host, directory)
  // Not one folder deeper: whatever lies there would be a guest's own.
  if ((await mountPoints()).some((path) => path.startsWith(`${directory}/`))) return
  await rm(directory, { recursive: true, force: true })
}
