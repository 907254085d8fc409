/**
 * Containers' files in a `dir` storage: the folder `images/<vmid>/subvol-<vmid>-disk-0.subvol`.
 *
 * A folder has no size of its own, so such a volume has no limit but the file system's; who needs one takes an image.
 * The tree is filled under an unfinished name. Its own name is first taken by an empty folder nobody may enter, which
 * `rename` then replaces in one act: of several who want the name exactly one has it.
 *
 * Trees are removed by `rm`, which follows no link on its way: what lies in them was written by guests.
 */
import { chmod, lstat, mkdir, rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { systemClock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { asVmid, type Vmid } from '#base/ids.ts'
import { asFileFault, codeOf, isThere, syncDirectory } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { removeTree } from '#host/files/remove-tree.ts'
import type { TreeLinks, TreePart, VolumeFacts } from '../plugin.ts'
import { filesIn, newUnfinishedFolder } from '../unfinished.ts'
import { parseVolumeName, type TreeName, volumeId } from '../volume.ts'
import { removeIfEmpty } from './dir-images.ts'
import { imageFolder, type Layout, makeFolder, makeFoldersFor, PASSABLE, volumePath } from './dir-paths.ts'
import { dirTreeLinks, isBasedAsNamed, linkedPath, parentOf } from './dir-tree-links.ts'
import { hiddenPath, noVolume } from './dir-volumes.ts'

interface Place {
  readonly layout: Layout
  readonly storage: string
  readonly host: Host
}

/** Of a name that is taken and has no content yet. */
const RESERVED = 0o000
/** Between taking a name and giving it its content nothing is waited for. */
const reservedMs = 10_000

export function dirTrees({ layout, storage, host }: Place): TreePart & { readonly links: TreeLinks } {
  const path = (name: TreeName) => volumePath(layout, name)
  const aside = (name: TreeName, mark: string) => hiddenPath(path(name), 'gone', mark)
  const create = async (name: TreeName, fill: (path: string) => Promise<void>) => {
    const folder = imageFolder(layout, name.vmid)
    await makeFoldersFor(layout, 'images')
    await makeFolder(folder, PASSABLE)
    const unfinished = await newUnfinishedFolder(folder, '.subvol')
    try {
      await fill(unfinished)
      if (await isThere(name.parent ? volumePath(layout, withoutParent(name)) : linkedPath(layout, name))) {
        throw new Fault('conflict', `volume '${volumeId(storage, name)}' already exists`)
      }
      await reserve(path(name), volumeId(storage, name))
      await rename(unfinished, path(name))
    } catch (cause) {
      throw asFileFault(cause, path(name))
    } finally {
      await removeTree(host, unfinished)
      await removeIfEmpty(folder)
    }
    await syncDirectory(folder)
  }
  return {
    path,
    create,
    links: dirTreeLinks({ layout, storage, make: create }),
    list: (vmid) => listTrees(layout, vmid),
    async describe(name) {
      const facts = (await isBasedAsNamed(path(name), name)) ? await treeFacts(path(name), name) : undefined
      if (!facts) throw noVolume(storage, name)
      return facts
    },
    async remove(name) {
      if (!(await isThere(path(name)))) return false
      const gone = await newUnfinishedFolder(dirname(path(name)), '.subvol')
      await rename(path(name), gone)
      await removeTree(host, gone)
      await removeIfEmpty(dirname(path(name)))
      return true
    },
    async rename(name, other) {
      if (!(await treeFacts(path(name), name))) {
        if (await treeFacts(path(other), other)) return
        throw noVolume(storage, name)
      }
      await makeFolder(imageFolder(layout, other.vmid), PASSABLE)
      await reserve(path(other), volumeId(storage, other))
      await rename(path(name), path(other))
      await syncDirectory(dirname(path(other)))
      await removeIfEmpty(dirname(path(name)))
    },
    async setAside(name, mark) {
      if (await isThere(aside(name, mark))) return
      if (!(await isThere(path(name)))) throw noVolume(storage, name)
      await rename(path(name), aside(name, mark))
      await syncDirectory(dirname(path(name)))
    },
    async bringBack(name, mark) {
      if (!(await isThere(aside(name, mark)))) return
      await reserve(path(name), volumeId(storage, name))
      await rename(aside(name, mark), path(name))
      await syncDirectory(dirname(path(name)))
    },
    async erase(name, mark) {
      await removeTree(host, aside(name, mark))
      await removeIfEmpty(dirname(path(name)))
    },
  }
}

function withoutParent({ kind, vmid, base }: TreeName): TreeName {
  return { kind, vmid, base }
}

/** Names somebody took and was killed before anything had them. Returns what it removed. */
export async function sweepReserved(folder: string): Promise<string[]> {
  const swept: string[] = []
  for (const file of await filesIn(folder)) {
    const path = join(folder, file)
    if (!isTreeFile(file) || !(await isThere(path)) || !isReserved((await lstat(path)).mode)) continue
    if (!(await isLeftOver(path))) continue
    await removeIfEmpty(path)
    swept.push(file)
  }
  return swept
}

function isTreeFile(file: string): boolean {
  return /\.(?:subvol|overlay)$/.test(file)
}

/** @throws Fault `conflict` when there is such a volume */
async function reserve(path: string, volume: string): Promise<void> {
  try {
    await mkdir(path, { mode: RESERVED })
    await chmod(path, RESERVED)
  } catch (cause) {
    if (codeOf(cause) !== 'EEXIST') throw asFileFault(cause, path)
    // Left by somebody who was killed right after taking it: there is nothing in it to lose.
    if (await isLeftOver(path)) return
    throw new Fault('conflict', `volume '${volume}' already exists`, { cause })
  }
}

async function isLeftOver(path: string): Promise<boolean> {
  const { mode, ctimeMs } = await lstat(path)
  return isReserved(mode) && systemClock.now() - ctimeMs > reservedMs
}

function isReserved(mode: number): boolean {
  return (mode & 0o7777) === RESERVED
}

async function listTrees(layout: Layout, vmid?: Vmid): Promise<VolumeFacts<TreeName>[]> {
  const folders = vmid === undefined ? await filesIn(imageFolder(layout)) : [`${vmid}`]
  const found: VolumeFacts<TreeName>[] = []
  for (const owner of folders.filter((folder) => /^[1-9]\d{2,8}$/.test(folder)).map(asVmid)) {
    for (const file of (await filesIn(imageFolder(layout, owner))).filter(isTreeFile)) {
      const name = await nameAt(layout, owner, file)
      const facts = name && (await treeFacts(volumePath(layout, name), name))
      if (facts) found.push(facts)
    }
  }
  return found
}

async function nameAt(layout: Layout, owner: Vmid, file: string): Promise<TreeName | undefined> {
  const name = treeNamed(`${owner}/${file.replace(/\.overlay$/, '.subvol')}`)
  if (!name || file.endsWith('.subvol')) return name
  const parent = await parentOf(linkedPath(layout, name))
  return parent && { ...name, parent }
}

function treeNamed(text: string): TreeName | undefined {
  try {
    const name = parseVolumeName(text)
    return name.kind === 'tree' ? name : undefined
  } catch (error) {
    if (error instanceof Fault) return undefined
    throw error
  }
}

async function treeFacts(path: string, name: TreeName): Promise<VolumeFacts<TreeName> | undefined> {
  try {
    const found = await lstat(path)
    // A link could lead anywhere, so it is no volume.
    if (!found.isDirectory() || isReserved(found.mode)) return undefined
    return { name, sizeBytes: 0, usedBytes: 0, ctime: Math.floor(found.ctimeMs / 1000) }
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return undefined
    throw asFileFault(cause, path)
  }
}
