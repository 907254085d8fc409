/**
 * Linked clones and snapshots of a `dir` storage: qcow2 images that name the disk of a template as their backing
 * file, and the snapshots qcow2 images hold inside.
 *
 * What an image may be based on is said by its volume name, which no guest can write. Its header must then say
 * exactly that. The base itself belongs to root, was checked when it became one, and is never opened for writing
 * again; so for what a base is based on, its header is as good as a name.
 */
import { chmod, chown, lstat, rm, unlink } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { Fault } from '#base/fault.ts'
import { asFileFault, codeOf, isThere, syncDirectory } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { removeAllBitmaps } from '#host/qemu/qemu-img-bitmaps.ts'
import { changeSnapshot, createOverlay } from '#host/qemu/qemu-img-layers.ts'
import { qcow2HeaderOf, requireSelfContained, snapshotTags } from '../image-header.ts'
import type { ImageLinks, ImageSnapshots, Layer } from '../plugin.ts'
import { type ImageName, isBase, parentIn, type ParentName, volumeId } from '../volume.ts'
import { type Layout, volumePath } from './dir-paths.ts'
import { linkUnlessTaken, noVolume } from './dir-volumes.ts'

interface Place {
  readonly layout: Layout
  readonly storage: string
  readonly host: Host
  /** Makes an unfinished image beside the future one. */
  readonly newFile: (name: ImageName) => Promise<string>
  readonly sync: (path: string) => Promise<void>
  readonly sizeOf: (name: ImageName) => Promise<number>
}

const deepest = 32

export function dirLinks(place: Place): ImageLinks {
  const { layout, storage, host } = place
  const path = (name: ParentName) => volumePath(layout, { kind: 'image', ...name })
  return {
    nameOf: (name, { vmid, base, format }) => ({ ...name, format: 'qcow2', parent: { vmid, base, format } }),
    layers: (name) => layersOf(place, name),
    async link(name, parent) {
      await layersOf(place, await frozen(place, parent))
      const sizeBytes = await place.sizeOf(parent)
      const unfinished = await place.newFile(name)
      try {
        await createOverlay(host, {
          path: unfinished,
          sizeBytes,
          backing: backingText(parent),
          backingFormat: parent.format,
        })
        await place.sync(unfinished)
        await linkUnlessTaken(unfinished, path(name), volumeId(storage, name))
      } catch (cause) {
        throw asFileFault(cause, path(name))
      } finally {
        await rm(unfinished, { force: true })
      }
      await syncDirectory(dirname(path(name)))
    },
    async freeze(name) {
      if (isBase(name)) return name
      const frozenName: ImageName = { ...name, base: name.base.replace(/^vm-/, 'base-') }
      if (!(await isThere(path(name))) && (await isThere(path(frozenName)))) return frozenName
      await layersOf(place, name)
      await chown(path(name), 0, 0)
      await chmod(path(name), 0o400)
      await renamed(storage, path(name), path(frozenName), frozenName)
      return frozenName
    },
    async unfreeze(name) {
      const plain: ImageName = { ...name, base: name.base.replace(/^base-/, 'vm-') }
      if (await isThere(path(name))) {
        await renamed(storage, path(name), path(plain), plain)
        await chmod(path(plain), 0o600)
      }
      return plain
    },
  }
}

export function dirSnapshots(place: Place): ImageSnapshots {
  const { layout, host } = place
  const list = async (name: ImageName) => {
    await layersOf(place, name)
    return snapshotTags(volumePath(layout, name))
  }
  return {
    list,
    async take(name, tag) {
      if ((await list(name)).includes(tag)) return
      await changeSnapshot(host, 'take', await layersOf(place, name), tag)
      await place.sync(volumePath(layout, name))
    },
    async rollBack(name, tag) {
      if (!(await list(name)).includes(tag)) {
        throw new Fault('missing', `snapshot '${tag}' of volume '${volumeId(place.storage, name)}' does not exist`)
      }
      const layers = await layersOf(place, name)
      await dropBitmaps(host, volumePath(layout, name), name.format)
      await changeSnapshot(host, 'roll-back', layers, tag)
      await place.sync(volumePath(layout, name))
    },
    async drop(name, tag) {
      if (!(await list(name)).includes(tag)) return
      await changeSnapshot(host, 'drop', await layersOf(place, name), tag)
      await place.sync(volumePath(layout, name))
    },
  }
}

/** Before an image is made another one. Its header is asked first: most have none, and then no program is started. */
export async function dropBitmaps(host: Host, path: string, format: ImageName['format']): Promise<void> {
  if (format === 'qcow2' && (await qcow2HeaderOf(path)).hasBitmaps) await removeAllBitmaps(host, { path, format })
}

/** The backing file as it stands in an image: relative, so that the storage can be moved. */
function backingText(parent: ParentName): string {
  return `../${parent.vmid}/${parent.base}.${parent.format}`
}

/** What a header's backing file means here; nothing when it is none of ours. */
export function parentOfBacking(text: string | undefined): ParentName | undefined {
  return text?.startsWith('../') ? parentIn(text.slice('../'.length)) : undefined
}

async function layersOf(place: Place, name: ImageName): Promise<[Layer, ...Layer[]]> {
  const first = await checkedLayer(place, name)
  const layers: [Layer, ...Layer[]] = [first]
  for (let { parent } = name; parent;) {
    if (layers.length >= deepest) throw new Fault('damaged', `image '${first.path}' has too many layers`)
    const below: ImageName = await frozen(place, parent)
    layers.push(await checkedLayer(place, below))
    parent = below.parent
  }
  return layers
}

async function checkedLayer({ layout, storage }: Place, name: ImageName): Promise<Layer> {
  const path = volumePath(layout, name)
  try {
    await requireSelfContained(path, name.format, name.parent && backingText(name.parent))
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') throw noVolume(storage, name)
    throw cause
  }
  return { path, format: name.format }
}

/** The full name of a base. @throws Fault `denied` when it is not root's alone, so that its header cannot be believed */
async function frozen({ layout, storage }: Place, parent: ParentName): Promise<ImageName> {
  const { vmid, base: file, format } = parent
  const name: ImageName = { kind: 'image', vmid, base: file, format }
  const path = volumePath(layout, name)
  const stat = await lstat(path).catch((cause: unknown) => {
    throw codeOf(cause) === 'ENOENT' ? noVolume(storage, name) : asFileFault(cause, path)
  })
  if (!isBase(name) || !stat.isFile() || stat.uid !== 0 || (stat.mode & 0o022) !== 0) {
    throw new Fault('denied', `'${path}' cannot be the base of other disks: somebody but root may write to it`, {
      remedy: `If it is the disk of a template: \`chown root: ${basename(path)}\`, \`chmod 400 ${basename(path)}\`.`,
    })
  }
  if (format === 'raw') return name
  const below = parentOfBacking((await qcow2HeaderOf(path)).backingName)
  return below ? { ...name, parent: below } : name
}

/** Gives a file another name, never over one that is there, and finishes what was begun. */
async function renamed(storage: string, from: string, to: string, name: ImageName): Promise<void> {
  await linkUnlessTaken(from, to, volumeId(storage, name))
  await unlink(from)
  await syncDirectory(dirname(to))
}
