/**
 * What images and files of a `dir` storage have in common: facts from the file system, and leaving.
 *
 * A volume out of sight stays in its folder as `.gone-<mark>-<digest>` (set aside) or
 * `.staged-<mark>-<digest>` (not yet published); the digest stands for its name, which may be as long as a
 * file's name can be.
 */
import { createHash } from 'node:crypto'
import { link, lstat, rename, rm, unlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { Fault, missing } from '#base/fault.ts'
import { asFileFault, codeOf, isThere, syncDirectory } from '#host/files.ts'
import type { Part, VolumeFacts } from '../plugin.ts'
import { type FileName, type ImageName, printVolumeName, type StoredName } from '../volume.ts'

/** What the file system says of a volume; nothing when there is no such regular file. */
export async function factsAt<Name extends ImageName | FileName>(
  path: string,
  name: Name,
): Promise<VolumeFacts<Name> | undefined> {
  try {
    const stat = await lstat(path)
    // A link could lead anywhere, so it is no volume.
    if (!stat.isFile()) return undefined
    return { name, sizeBytes: stat.size, usedBytes: stat.blocks * 512, ctime: Math.floor(stat.mtimeMs / 1000) }
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return undefined
    throw asFileFault(cause, path)
  }
}

/** The verbs of leaving, for volumes found by `path`. */
export function leaving<Name extends ImageName | FileName>(
  storage: string,
  path: (name: Name) => string,
): Pick<Part<Name>, 'path' | 'remove' | 'setAside' | 'bringBack' | 'erase'> {
  const asidePath = (name: Name, mark: string) => hiddenPath(path(name), 'gone', mark)
  return {
    path,
    remove: (name) => unlinkIfThere(path(name)),
    async setAside(name, mark) {
      try {
        await rename(path(name), asidePath(name, mark))
      } catch (cause) {
        if (codeOf(cause) !== 'ENOENT') throw asFileFault(cause, path(name))
        if (await isThere(asidePath(name, mark))) return
        throw noVolume(storage, name)
      }
      await syncDirectory(dirname(path(name)))
    },
    async bringBack(name, mark) {
      if (!(await isThere(asidePath(name, mark)))) return
      await linkUnlessTaken(asidePath(name, mark), path(name), `${storage}:${printVolumeName(name)}`)
      await unlink(asidePath(name, mark))
      await syncDirectory(dirname(path(name)))
    },
    erase: async (name, mark) => {
      await rm(asidePath(name, mark), { force: true })
    },
  }
}

/** Where a volume waits out of sight; the same for whoever knows volume and mark. */
export function hiddenPath(path: string, why: 'gone' | 'staged', mark: string): string {
  if (!/^[a-z0-9]{1,64}$/.test(mark)) throw new Error(`'${mark}' is no mark`)
  const digest = createHash('sha256').update(basename(path)).digest('hex').slice(0, 16)
  return join(dirname(path), `.${why}-${mark}-${digest}`)
}

export function noVolume(storage: string, name: StoredName): Fault {
  return missing('volume', `${storage}:${printVolumeName(name)}`)
}

/** Gives a finished file its name. Of several who try at once exactly one succeeds; the others get `conflict`. */
export async function linkUnlessTaken(from: string, to: string, volume: string): Promise<void> {
  try {
    await link(from, to)
  } catch (cause) {
    if (codeOf(cause) !== 'EEXIST') throw asFileFault(cause, to)
    // The name may be this very file: we were killed between `link` and `unlink` before.
    const [mine, theirs] = [await lstat(from), await lstat(to)]
    if (mine.ino !== theirs.ino || mine.dev !== theirs.dev) {
      throw new Fault('conflict', `volume '${volume}' already exists`)
    }
  }
}

async function unlinkIfThere(path: string): Promise<boolean> {
  try {
    await unlink(path)
    return true
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return false
    throw asFileFault(cause, path)
  }
}
