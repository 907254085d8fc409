/**
 * The files of a container where the machine can see them: a folder as it is, an image or the layers of a linked clone
 * mounted for as long as the container runs.
 *
 * Mounts lie below one folder per guest, so whoever cleans up finds them all without being told, also after a crash.
 */
import { rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { KiB } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import { checkExt4, ext4BytesOf, growExt4, hasDirtyJournal } from '#host/disks/ext4.ts'
import type { Host } from '#host/host.ts'
import { makeDirectory } from '#host/files.ts'
import { bindMount, type MountRule, mountRules } from '#host/disks/bind-mount.ts'
import { mountLoop, mountOverlay, mountPoints, unmountBelow } from '#host/disks/mount.ts'
import { isBase, parseVolumeId } from '#storage/volume.ts'
import type { Options } from '../config.ts'
import type { GuestStorage } from '../needs.ts'
import { idsOfMount } from './mount-ids.ts'
import { type Mount, mountedVolumes, mountsOf, wishOf } from './mountpoint.ts'

export interface VolumeNeeds {
  readonly host: Host
  readonly storage: Pick<GuestStorage, 'location' | 'describe' | 'snapshots' | 'treeLayers'>
  readonly runDir: string
}

/** Less than the smallest growth anybody can ask for. */
const oddEndBytes = 512 * KiB

/** Where a guest's images are mounted, and those of one of its snapshots. */
export function mountsDirOf(runDir: string, vmid: Vmid, at?: string): string {
  return join(runDir, 'mounts', at === undefined ? String(vmid) : `${vmid}@${at}`)
}

/**
 * Where each of the guest's mounts is on the node, once that is mounted.
 * @param at as they are in that snapshot, only to be read
 * @param isReadOnly nothing of what is mounted for this is written to
 * @throws Fault `missing`, `failed`
 */
export async function openVolumes(
  needs: VolumeNeeds,
  vmid: Vmid,
  options: Options,
  at?: string,
  isReadOnly = false,
): Promise<Readonly<Record<string, string>>> {
  const places: Record<string, string> = {}
  for (const mount of mountsOf(options))
    places[mount.name] = await openVolume({ ...needs, isReadOnly }, vmid, mount, at)
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

async function openVolume(needs: Opening, vmid: Vmid, mount: Mount, at: string | undefined): Promise<string> {
  const { storage } = needs
  const wish = wishOf(mount)
  if (wish.kind === 'path') return wish.path
  if (wish.kind === 'allocate') throw new Fault('conflict', `${mount.name} of CT ${vmid} has no volume yet`)
  const { volid } = wish
  const kept = at === undefined ? undefined : (await storage.snapshots(volid)).pathOf(at)
  const { format } = await storage.describe(volid)
  const shown = { ...needs, target: join(mountsDirOf(needs.runDir, vmid, at), mount.name) }
  switch (format) {
    case 'subvol':
      return kept ?? openTree(shown, volid)
    case 'raw':
      return openImage(shown, mount, volid, kept)
    default:
      throw new Fault('conflict', `${mount.name} of CT ${vmid}: '${format}' images cannot be mounted`)
  }
}

function isOfTemplate(volid: VolumeId): boolean {
  const { name } = parseVolumeId(volid)
  return (name.kind === 'image' || name.kind === 'tree') && isBase(name)
}

interface Opening extends VolumeNeeds {
  readonly isReadOnly: boolean
}

interface Shown extends Opening {
  readonly target: string
}

/** A folder as it is, or folders on top of one another: ids in all of them are those of the container already. */
async function openTree({ host, storage, target }: Shown, volid: VolumeId): Promise<string> {
  const tree = await storage.treeLayers(volid)
  if (tree.kind === 'folder') return tree.path
  await makeWay(target)
  if (!(await mountPoints()).includes(target)) await mountOverlay(host, { ...tree, target })
  return target
}

/** @param kept the file of a snapshot of the image */
async function openImage(
  { host, storage, target, isReadOnly }: Shown,
  mount: Mount,
  volid: VolumeId,
  kept?: string,
): Promise<string> {
  const { path, sizeBytes } = await storage.location(volid)
  await makeWay(target)
  if ((await mountPoints()).includes(target)) return target
  const { acl } = mount.values
  const named = ['nodev', ...ofDisk(mount), ...(acl === undefined ? [] : [acl === true ? 'acl' : 'noacl'])]
  if (kept !== undefined || isOfTemplate(volid)) {
    // Not even the journal is touched; there is nothing in it.
    await mountLoop(host, { image: kept ?? path, target, options: ['ro', 'noload', ...named] })
    return target
  }
  if (!isReadOnly) await followImage(host, path, sizeBytes)
  // After a loss of power even who only reads needs what the journal holds.
  else if (await hasDirtyJournal(path)) await checkExt4(host, path)
  await mountLoop(host, { image: path, target, options: [isReadOnly ? 'ro' : 'rw', ...named] })
  return target
}

/** On the way to it others see nothing, and pass: the container's root is nobody here. */
async function makeWay(target: string): Promise<void> {
  await makeDirectory(dirname(dirname(target)))
  await makeDirectory(dirname(target))
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
  const target = join(mountsDirOf(runDir, vmid), `${mount.name}.seen`)
  await makeWay(target)
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
export async function closeVolumes(
  { host, runDir }: Omit<VolumeNeeds, 'storage'>,
  vmid: Vmid,
  at?: string,
): Promise<void> {
  const directory = mountsDirOf(runDir, vmid, at)
  await unmountBelow(host, directory)
  // Not one folder deeper: whatever lies there would be a guest's own.
  if ((await mountPoints()).some((path) => path.startsWith(`${directory}/`))) return
  await rm(directory, { recursive: true, force: true })
}
