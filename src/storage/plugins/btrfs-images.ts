/**
 * Disk images of a `btrfs` storage. A raw one is the file `disk.raw` in a subvolume of its own,
 * `images/<vmid>/vm-<vmid>-disk-0/disk.raw`, and so has snapshots and linked clones; the others are files as in `dir`.
 *
 * A linked clone of a raw image shares its blocks with the template's and does not refer to it: each may go without the
 * other, so its name says nothing of it.
 */
import { chmod, chown, open, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import { asVmid, type Vmid } from '#base/ids.ts'
import { isSubvolume, writeInPlace } from '#host/disks/btrfs.ts'
import { asFileFault, codeOf, syncDirectory } from '#host/files.ts'
import { createImage, growImage, type Preallocation } from '#host/qemu/qemu-img.ts'
import type { ImageLinks, ImagePart, ImageSnapshots, NewVolume, VolumeFacts } from '../plugin.ts'
import { filesIn, newUnfinished, sweepUnfinished } from '../unfinished.ts'
import { type ImageName, isBase, parseVolumeName } from '../volume.ts'
import { type SubvolumePlace, Subvolumes } from './btrfs-subvolumes.ts'
import { dirImages, giveFileTo, syncFile } from './dir-images.ts'
import { imageFolder } from './dir-paths.ts'
import { factsAt, noVolume } from './dir-volumes.ts'

interface Place extends SubvolumePlace {
  readonly preallocation: Preallocation
  /** Raw images are written in place, without check sums. */
  readonly isInPlace: boolean
}

const diskIn = (subvolume: string) => join(subvolume, 'disk.raw')

/** The part for images; each goes to whom its format belongs. */
export function btrfsImages(place: Place): ImagePart {
  const [raw, files] = [rawImages(place), dirImages(place)]
  const of = ({ format }: ImageName) => (format === 'raw' ? raw : files)
  return {
    path: (name) => of(name).path(name),
    describe: (name) => of(name).describe(name),
    remove: (name) => of(name).remove(name),
    setAside: (name, mark) => of(name).setAside(name, mark),
    bringBack: (name, mark) => of(name).bringBack(name, mark),
    erase: (name, mark) => of(name).erase(name, mark),
    async list(vmid) {
      const others = (await files.list(vmid)).filter(({ name }) => name.format !== 'raw')
      const all = [...(await raw.list(vmid)), ...others]
      return all.toSorted((a, b) => a.name.vmid - b.name.vmid || (a.name.base < b.name.base ? -1 : 1))
    },
    create: (name, volume) => of(name).create(name, volume),
    replace: (name, volume) => of(name).replace(name, volume),
    rename: (name, other) => of(name).rename(name, other),
    grow: (name, sizeBytes) => of(name).grow(name, sizeBytes),
    giveTo: (name, uid) => of(name).giveTo(name, uid),
    snapshots: {
      list: (name) => of(name).snapshots.list(name),
      take: (name, tag) => of(name).snapshots.take(name, tag),
      rollBack: (name, tag) => of(name).snapshots.rollBack(name, tag),
      drop: (name, tag) => of(name).snapshots.drop(name, tag),
      pathOf: (name, tag) => of(name).snapshots.pathOf?.(name, tag),
    },
    links: {
      nameOf: (name, base) => of(base).links.nameOf(name, base),
      link: (name, parent) => of(parent).links.link(name, parent),
      layers: (name) => of(name).links.layers(name),
      freeze: (name) => of(name).links.freeze(name),
      unfreeze: (name) => of(name).links.unfreeze(name),
    },
  }
}

type WholePart = ImagePart & { readonly links: ImageLinks; readonly snapshots: ImageSnapshots }

function rawImages(place: Place): WholePart {
  const { layout, storage, host } = place
  const volumes = new Subvolumes<ImageName>(place, ({ vmid, base }) => join(imageFolder(layout, vmid), base), {
    isOpenToGuests: false,
    empty,
  })
  const path = (name: ImageName) => diskIn(volumes.home(name))
  const describe = async (name: ImageName) => {
    // One that says it is based on another is none: here they do not refer to one another.
    const facts = name.parent ? undefined : await factsAt(path(name), name)
    if (!facts) throw noVolume(storage, name)
    return facts
  }
  return {
    ...volumes.leaving(),
    path,
    describe,
    ...rawContent(place, volumes),
    async list(vmid) {
      const found: VolumeFacts<ImageName>[] = []
      for (const name of await namesIn(place, vmid)) {
        const facts = await factsAt(path(name), name)
        if (facts) found.push(facts)
      }
      return found
    },
    async grow(name, sizeBytes) {
      await describe(name)
      await growImage(host, path(name), 'raw', sizeBytes)
      await syncFile(path(name))
    },
    async giveTo(name, uid) {
      await describe(name)
      await giveFileTo(path(name), uid)
    },
    snapshots: {
      list: (name) => volumes.tags(name),
      take: (name, tag) => volumes.take(name, tag),
      rollBack: (name, tag) => volumes.rollBack(name, tag),
      drop: (name, tag) => volumes.drop(name, tag),
      pathOf: (name, tag) => diskIn(volumes.tagged(name, tag)),
    },
    links: rawLinks(volumes, describe),
  }
}

function rawContent(place: Place, volumes: Subvolumes<ImageName>): Pick<ImagePart, 'create' | 'replace'> {
  const { host, preallocation, isInPlace } = place
  const make = async (disk: string, { sizeBytes, fill }: NewVolume) => {
    if (isInPlace) await writeInPlace(host, disk)
    await createImage(host, { path: disk, format: 'raw', sizeBytes, preallocation })
    await fill?.(disk)
    await syncFile(disk)
  }
  const create = (name: ImageName, volume: NewVolume) =>
    volumes.create(name, async (home) => {
      await chmod(home, 0o711)
      await (await open(diskIn(home), 'wx', 0o600)).close()
      await make(diskIn(home), volume)
    })
  return {
    create,
    async replace(name, volume) {
      const home = volumes.home(name)
      if (!(await isSubvolume(home))) return create(name, volume)
      const unfinished = await newUnfinished(home, '.raw')
      try {
        await make(unfinished, volume)
        await rename(unfinished, diskIn(home))
        await syncDirectory(home)
      } catch (cause) {
        throw asFileFault(cause, diskIn(home))
      } finally {
        await rm(unfinished, { force: true })
      }
    },
  }
}

function rawLinks(volumes: Subvolumes<ImageName>, describe: (name: ImageName) => Promise<unknown>): ImageLinks {
  const path = (name: ImageName) => diskIn(volumes.home(name))
  return {
    nameOf: ({ kind, vmid, base }) => ({ kind, vmid, base, format: 'raw' }),
    async layers(name) {
      await describe(name)
      return [{ path: path(name), format: 'raw' }]
    },
    async link(name, parent) {
      await describe(parent)
      if (!isBase(parent)) {
        throw new Fault('denied', `'${path(parent)}' cannot be the base of other disks: it is no template's`)
      }
      await volumes.copy(name, volumes.home(parent), (home) => chmod(diskIn(home), 0o600))
    },
    async freeze(name) {
      if (isBase(name)) return name
      const frozen: ImageName = { ...name, base: name.base.replace(/^vm-/, 'base-') }
      if (await isSubvolume(volumes.home(name))) {
        await chown(path(name), 0, 0)
        await chmod(path(name), 0o400)
      }
      await volumes.seal(name, frozen)
      return frozen
    },
    async unfreeze(name) {
      const plain: ImageName = { ...name, base: name.base.replace(/^base-/, 'vm-') }
      await volumes.unseal(name, plain)
      await chmod(path(plain), 0o600)
      return plain
    },
  }
}

/** A large file goes at once; a subvolume when the kernel comes to it. That of a snapshot cannot be removed, and need not. */
async function empty(subvolume: string): Promise<void> {
  try {
    await rm(diskIn(subvolume), { force: true })
  } catch (cause) {
    if (!['EROFS', 'ENOTDIR'].includes(codeOf(cause) ?? '')) throw cause
  }
}

async function namesIn({ layout }: SubvolumePlace, vmid?: Vmid): Promise<ImageName[]> {
  const folders = vmid === undefined ? await filesIn(imageFolder(layout)) : [`${vmid}`]
  const names: ImageName[] = []
  for (const owner of folders.filter((folder) => /^[1-9]\d{2,8}$/.test(folder)).map(asVmid)) {
    for (const file of await filesIn(imageFolder(layout, owner))) {
      const name = imageNamed(`${owner}/${file}.raw`)
      // Not a file with this name, which another driver may have left here.
      if (name && (await isSubvolume(join(imageFolder(layout, owner), file)))) names.push(name)
    }
  }
  return names
}

function imageNamed(text: string): ImageName | undefined {
  try {
    const name = parseVolumeName(text)
    return name.kind === 'image' && name.parent === undefined ? name : undefined
  } catch (error) {
    if (error instanceof Fault) return undefined
    throw error
  }
}

/** Removes what killed processes left inside of the guests' images. */
export async function sweepImages(place: SubvolumePlace): Promise<string[]> {
  const swept: string[] = []
  for (const { vmid, base } of await namesIn(place)) {
    swept.push(...(await sweepUnfinished(join(imageFolder(place.layout, vmid), base))))
  }
  return swept
}
