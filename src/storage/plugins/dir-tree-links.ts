/**
 * Linked clones of containers' files in a `dir` storage: what differs from a template's files, as the upper layer of
 * an overlay file system over them.
 *
 * Such a volume is a folder of ours, `images/<vmid>/subvol-<vmid>-disk-0.overlay`, with `upper` and `work` in it and a
 * link `lower` that says what it is based on. Its ending is its own, so nothing a guest puts into its files can make
 * them look like one. Whoever shows the files mounts the layers; nothing of that is done here.
 */
import { chmod, chown, lstat, mkdir, readlink, rename, symlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Fault } from '#base/fault.ts'
import { asFileFault, codeOf, isThere, syncDirectory } from '#host/files.ts'
import type { TreeLayers, TreeLinks } from '../plugin.ts'
import { isBase, isSameTree, type TreeName, type TreeParent, treeParentIn, volumeId } from '../volume.ts'
import { type Layout, volumePath } from './dir-paths.ts'
import { noVolume } from './dir-volumes.ts'

interface Place {
  readonly layout: Layout
  readonly storage: string
  /** Makes a tree whole or not at all, as `create` does. */
  readonly make: (name: TreeName, fill: (path: string) => Promise<void>) => Promise<void>
}

/** The kernel takes more; the text of a mount does not. */
const deepest = 32

export function dirTreeLinks(place: Place): TreeLinks {
  const { layout, storage } = place
  const path = (name: TreeName) => volumePath(layout, name)
  const moved = async (from: TreeName, to: TreeName) => {
    if (await isThere(path(to))) {
      throw new Fault('conflict', `volume '${volumeId(storage, to)}' already exists`)
    }
    try {
      await rename(path(from), path(to))
    } catch (cause) {
      throw codeOf(cause) === 'ENOENT' ? noVolume(storage, from) : asFileFault(cause, path(from))
    }
    await syncDirectory(dirname(path(to)))
  }
  return {
    nameOf: (name, { vmid, base }) => ({ ...name, parent: { vmid, base } }),
    async link(name, parent) {
      if (!isBase(parent)) throw noBase(path(parent))
      const base = await onDisk(place, parent)
      // The root of what is shown is that of the upper layer.
      const { uid, gid, mode } = await lstat(base.parent ? upperOf(path(base)) : path(base))
      await place.make({ ...name, parent: { vmid: base.vmid, base: base.base } }, async (folder) => {
        await symlink(lowerText(base), join(folder, 'lower'))
        await mkdir(join(folder, 'work'), { mode: 0o700 })
        await mkdir(upperOf(folder), { mode: 0o700 })
        await chown(upperOf(folder), uid, gid)
        await chmod(upperOf(folder), mode & 0o7777)
        // On the way to its files the container's root is nobody.
        await chmod(folder, 0o711)
      })
    },
    async freeze(name) {
      if (isBase(name)) return name
      const frozen: TreeName = { ...name, base: name.base.replace(/^subvol-/, 'basevol-') }
      if (!(await isThere(path(name))) && (await isThere(path(frozen)))) return frozen
      await moved(name, frozen)
      return frozen
    },
    async unfreeze(name) {
      const plain: TreeName = { ...name, base: name.base.replace(/^basevol-/, 'subvol-') }
      if (await isThere(path(name))) await moved(name, plain)
      return plain
    },
    layersOf: (name) => layersOf(place, name),
  }
}

async function layersOf(place: Place, name: TreeName): Promise<TreeLayers> {
  const path = volumePath(place.layout, name)
  if (!name.parent) return { kind: 'folder', path }
  const lowers: string[] = []
  for (let above: TreeName = name; above.parent;) {
    if (lowers.length >= deepest) throw new Fault('damaged', `'${path}' has too many layers`)
    above = await onDisk(place, above.parent)
    const at = volumePath(place.layout, above)
    lowers.push(above.parent ? upperOf(at) : at)
  }
  const [first = '', ...rest] = lowers
  return { kind: 'overlay', upper: upperOf(path), work: join(path, 'work'), lowers: [first, ...rest] }
}

/** The full name of a template's files, which may be a linked clone themselves. @throws Fault `missing` */
async function onDisk({ layout, storage }: Place, { vmid, base }: TreeParent): Promise<TreeName> {
  const whole: TreeName = { kind: 'tree', vmid, base }
  if (await isThere(volumePath(layout, whole))) return whole
  const parent = await parentOf(linkedPath(layout, whole))
  if (!parent) throw noVolume(storage, whole)
  return { ...whole, parent }
}

/** Where the tree is if it is a linked clone. */
export function linkedPath(layout: Layout, { kind, vmid, base }: TreeName): string {
  return volumePath(layout, { kind, vmid, base, parent: { vmid, base } })
}

/** What the linked clone in a folder is based on. Undefined when there is none. */
export async function parentOf(folder: string): Promise<TreeParent | undefined> {
  try {
    const text = await readlink(join(folder, 'lower'))
    return text.startsWith('../../') ? treeParentIn(text.slice(6).replace(/\.overlay$/, '.subvol')) : undefined
  } catch (cause) {
    if (['ENOENT', 'ENOTDIR', 'EINVAL'].includes(codeOf(cause) ?? '')) return undefined
    throw asFileFault(cause, folder)
  }
}

/** True when the folder is what the name says. */
export async function isBasedAsNamed(folder: string, { parent }: TreeName): Promise<boolean> {
  if (!parent) return true
  const found = await parentOf(folder)
  return found !== undefined && isSameTree(found, parent)
}

/** Relative, so that the storage can be moved. */
function lowerText(base: TreeName): string {
  return `../../${base.vmid}/${base.base}.${base.parent ? 'overlay' : 'subvol'}`
}

function upperOf(folder: string): string {
  return join(folder, 'upper')
}

function noBase(path: string): Fault {
  return new Fault('denied', `'${path}' cannot be the base of others: it is not of a template`)
}
