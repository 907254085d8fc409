/**
 * Disk images of a `dir` storage: `images/<vmid>/vm-<vmid>-disk-0.qcow2`.
 *
 * An image is made and filled under an unfinished name and then given its own by `link`, which, unlike
 * `rename`, fails when the name is taken: so two who allocate the same name at once cannot both believe
 * they have it, and nobody ever sees half an image.
 */
import { chmod, chown, lstat, open, rename, rm, rmdir, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Fault } from '#base/fault.ts'
import { asVmid, type Vmid } from '#base/ids.ts'
import { asFileFault, codeOf, isThere, syncDirectory } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { createImage, growImage, type Preallocation } from '#host/qemu/qemu-img.ts'
import { qcow2HeaderOf } from '../image-header.ts'
import type { ImageLinks, ImagePart, ImageSnapshots, NewVolume, VolumeFacts } from '../plugin.ts'
import { filesIn, newUnfinished } from '../unfinished.ts'
import { type ImageName, parseVolumeName, printVolumeName, volumeId } from '../volume.ts'
import { dirLinks, dirSnapshots, dropBitmaps, parentOfBacking } from './dir-links.ts'
import { imageFolder, type Layout, makeFolder, makeFoldersFor, PASSABLE, volumePath } from './dir-paths.ts'
import { factsAt, leaving, linkUnlessTaken, noVolume } from './dir-volumes.ts'

interface Place {
  readonly layout: Layout
  readonly storage: string
  readonly host: Host
  readonly preallocation: Preallocation
}

export function dirImages(
  place: Place,
): ImagePart & { readonly links: ImageLinks; readonly snapshots: ImageSnapshots } {
  const { layout, storage, host } = place
  const common = leaving<ImageName>(storage, (name) => volumePath(layout, name))
  const { path } = common
  const describe = async (name: ImageName) => {
    const facts = await imageFacts(path(name), name)
    // Somebody who leaves out what a disk is based on, or names another base, means another disk.
    if (!facts || printVolumeName(facts.name) !== printVolumeName(name)) throw noVolume(storage, name)
    return facts
  }
  const sizeOf = async (name: ImageName) => {
    const facts = await imageFacts(path(name), name)
    if (!facts) throw noVolume(storage, name)
    return facts.sizeBytes
  }
  const within = {
    layout,
    storage,
    host,
    sync: syncFile,
    sizeOf,
    newFile: (name: ImageName) => newImageFile(layout, name),
  }
  return {
    ...common,
    describe,
    links: dirLinks(within),
    snapshots: dirSnapshots(within),
    list: (vmid) => listImages(layout, vmid),
    async remove(name) {
      const wasThere = await common.remove(name)
      await removeIfEmpty(imageFolder(layout, name.vmid))
      return wasThere
    },
    async erase(name, mark) {
      await common.erase(name, mark)
      await removeIfEmpty(imageFolder(layout, name.vmid))
    },
    create: (name, volume) =>
      makeImage(place, name, volume, (unfinished) => linkUnlessTaken(unfinished, path(name), volumeId(storage, name))),
    replace: (name, volume) => makeImage(place, name, volume, (unfinished) => rename(unfinished, path(name))),
    async rename(name, other) {
      if (!(await isThere(path(name)))) {
        if (await isThere(path(other))) return
        throw noVolume(storage, name)
      }
      await makeFolder(imageFolder(layout, other.vmid), PASSABLE)
      await linkUnlessTaken(path(name), path(other), volumeId(storage, other))
      await unlink(path(name))
      await syncDirectory(dirname(path(other)))
      await removeIfEmpty(imageFolder(layout, name.vmid))
    },
    async grow(name, sizeBytes) {
      // Growing looks at nothing behind the image, but the tool would open it.
      await dirLinks(within).layers(name)
      await dropBitmaps(host, path(name), name.format)
      await growImage(host, path(name), name.format, sizeBytes)
      await syncFile(path(name))
    },
    async giveTo(name, uid) {
      await describe(name)
      await giveFileTo(path(name), uid)
    },
  }
}

/** @param show gives the finished image its name */
async function makeImage(
  { layout, host, preallocation }: Place,
  name: ImageName,
  { sizeBytes, isBlank = false, fill }: NewVolume,
  show: (unfinished: string) => Promise<void>,
): Promise<void> {
  const path = volumePath(layout, name)
  const unfinished = await newImageFile(layout, name)
  try {
    if (!isBlank) await createImage(host, { path: unfinished, format: name.format, sizeBytes, preallocation })
    await fill?.(unfinished)
    await syncFile(unfinished)
    await show(unfinished)
  } catch (cause) {
    throw asFileFault(cause, path)
  } finally {
    await rm(unfinished, { force: true })
    await removeIfEmpty(imageFolder(layout, name.vmid))
  }
  await syncDirectory(dirname(path))
}

async function listImages(layout: Layout, vmid?: Vmid): Promise<VolumeFacts<ImageName>[]> {
  const folders = vmid === undefined ? await filesIn(imageFolder(layout)) : [`${vmid}`]
  const owners = folders.filter((folder) => /^[1-9]\d{2,8}$/.test(folder)).map(asVmid)
  const lists = await Promise.all(owners.map((owner) => imagesOf(layout, owner)))
  return lists.flat()
}

async function imagesOf(layout: Layout, vmid: Vmid): Promise<VolumeFacts<ImageName>[]> {
  const files = await filesIn(imageFolder(layout, vmid))
  const names = files.map((file) => imageNamed(`${vmid}/${file}`)).filter((name) => name !== undefined)
  const found = await Promise.all(names.map((name) => imageFacts(volumePath(layout, name), name)))
  return found.filter((facts) => facts !== undefined)
}

/** Files in the folder that are no volumes (unfinished, set aside, somebody's notes) are no error. */
function imageNamed(text: string): ImageName | undefined {
  try {
    const name = parseVolumeName(text)
    return name.kind === 'image' ? name : undefined
  } catch (error) {
    if (error instanceof Fault) return undefined
    throw error
  }
}

/** The size of a qcow2 image is the one it shows to the guest, not that of its file. */
async function imageFacts(path: string, name: ImageName): Promise<VolumeFacts<ImageName> | undefined> {
  const facts = await factsAt(path, name)
  if (!facts || name.format === 'raw') return facts
  try {
    const { sizeBytes, backingName } = await qcow2HeaderOf(path)
    const { parent: _, ...plain } = name
    const parent = parentOfBacking(backingName)
    return { ...facts, sizeBytes, name: parent ? { ...plain, parent } : plain }
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return undefined // Removed since.
    // A damaged image must stay in the list, or nobody could remove it.
    if (cause instanceof Fault && cause.kind === 'damaged') return facts
    throw cause
  }
}

/** An empty file beside the future image. Somebody may remove the emptied folder meanwhile, hence twice. */
async function newImageFile(layout: Layout, name: ImageName): Promise<string> {
  const folder = imageFolder(layout, name.vmid)
  for (let attempt = 0; ; attempt += 1) {
    try {
      await makeFoldersFor(layout, 'images')
      await makeFolder(folder, PASSABLE)
      return await newUnfinished(folder, `.${name.format}`)
    } catch (cause) {
      if (codeOf(cause) !== 'ENOENT' || attempt === 2) throw asFileFault(cause, folder)
    }
  }
}

/** The folder of a guest that has no disk any more. */
export async function removeIfEmpty(folder: string): Promise<void> {
  try {
    await rmdir(folder)
  } catch (cause) {
    if (!['ENOTEMPTY', 'EEXIST', 'ENOENT'].includes(codeOf(cause) ?? '')) throw asFileFault(cause, folder)
  }
}

export async function syncFile(path: string): Promise<void> {
  await using file = await open(path, 'r+')
  await file.sync()
}

/** Makes an image readable and writable by this user alone. */
export async function giveFileTo(path: string, uid: number): Promise<void> {
  if (uid !== 0) await requirePassable(path)
  // Doing it again would be a change of the file, by whose time others know that it is as it was.
  const { mode, uid: owner, gid } = await lstat(path)
  if ((mode & 0o7777) === 0o600 && owner === uid && gid === uid) return
  await chmod(path, 0o600)
  await chown(path, uid, uid)
}

/** A guest's user must be able to pass every folder above its disk; QEMU would only say "Permission denied". */
async function requirePassable(path: string): Promise<void> {
  for (let folder = dirname(path); folder !== '/'; folder = dirname(folder)) {
    const { mode } = await lstat(folder)
    if ((mode & 0o001) !== 0) continue
    throw new Fault(
      'denied',
      `folder '${folder}' (mode ${(mode & 0o777).toString(8)}) cannot be passed by a guest's user`,
      {
        remedy: `Run \`chmod o+x ${folder}\`, or put the storage elsewhere.`,
      },
    )
  }
}
