/**
 * Plain files of a `dir` storage: installation media, templates, snippets, images to import, archives.
 *
 * They are written beside their final place and appear by one `rename`, which replaces an older file of
 * that name in the same act. The older one keeps a second, hidden name until its successor is there to stay.
 */
import type { BigIntStats } from 'node:fs'
import { link, lstat, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { asFileFault, codeOf, syncDirectory } from '#host/files.ts'
import type { FilePart, VolumeFacts } from '../plugin.ts'
import { filesIn, newUnfinished } from '../unfinished.ts'
import { complaintAboutFile, type FileContent, type FileName, madeAt } from '../volume.ts'
import { fileFolder, type Layout, makeFoldersFor, volumePath } from './dir-paths.ts'
import { annotateBeside, factsBeside, leavingTogether } from './dir-sides.ts'
import { factsAt, hiddenPath, leaving, noVolume } from './dir-volumes.ts'

export function dirFiles(layout: Layout, storage: string): FilePart {
  const common = leavingTogether(leaving<FileName>(storage, (name) => volumePath(layout, name)))
  const { path } = common
  const stagedPath = (name: FileName, mark: string) => hiddenPath(path(name), 'staged', mark)
  return {
    ...common,
    list: (content) => listFiles(layout, content),
    async describe(name) {
      const facts = await fileFacts(layout, name)
      if (!facts) throw noVolume(storage, name)
      return facts
    },
    async annotate(name, change) {
      if (!(await factsAt(path(name), name))) throw noVolume(storage, name)
      await annotateBeside(path(name), change)
    },
    async stage(name, mark, fill) {
      await makeFoldersFor(layout, name.content)
      const unfinished = await newUnfinished(dirname(path(name)))
      try {
        await fill(unfinished)
        const identity = await makePresentable(unfinished, name)
        await rename(unfinished, stagedPath(name, mark))
        return identity
      } catch (cause) {
        await rm(unfinished, { force: true })
        throw asFileFault(cause, path(name))
      }
    },
    async publish(name, mark) {
      await linkIfThere(path(name), hiddenPath(path(name), 'gone', mark))
      try {
        await rename(stagedPath(name, mark), path(name))
        await syncDirectory(dirname(path(name)))
      } catch (cause) {
        throw asFileFault(cause, path(name))
      }
    },
    async withdraw(name, mark, identity) {
      const [visible, before] = [path(name), hiddenPath(path(name), 'gone', mark)]
      const now = await identityAt(visible)
      const isReplaced = now === undefined || now === identity
      // Renaming one name of a file over its other name does nothing, hence the distinction.
      if (isReplaced && (await identityAt(before)) !== undefined) await rename(before, visible)
      else if (now === identity) await rm(visible, { force: true })
      else await rm(before, { force: true })
    },
    discard: (name, mark) => rm(stagedPath(name, mark), { force: true }),
  }
}

async function listFiles(layout: Layout, content: FileContent | 'backup'): Promise<VolumeFacts<FileName>[]> {
  const files = await filesIn(fileFolder(layout, content))
  const names = files.filter((file) => complaintAboutFile(content, file) === undefined)
  const found = await Promise.all(names.map((file) => fileFacts(layout, { kind: 'file', content, file })))
  return found.filter((facts) => facts !== undefined)
}

/** An archive says in its name when it was made, and beside it what people noted. */
async function fileFacts(layout: Layout, name: FileName): Promise<VolumeFacts<FileName> | undefined> {
  const path = volumePath(layout, name)
  const facts = await factsAt(path, name)
  if (!facts || name.content !== 'backup') return facts
  return { ...facts, ctime: madeAt(name) ?? facts.ctime, ...(await factsBeside(path)) }
}

/**
 * Installation media are read by guests' QEMUs, each under a user of its own; the rest is nobody's business.
 * Returns the identity of the file, now on disk.
 */
async function makePresentable(path: string, name: FileName): Promise<string> {
  await using file = await open(path, 'r+')
  await file.chmod(name.content === 'iso' ? 0o644 : 0o600)
  await file.sync()
  return identityOf(await file.stat({ bigint: true }))
}

/** Stays the same through every rename, and is that of no other file that has had the name. */
function identityOf({ dev, ino, mtimeNs }: BigIntStats): string {
  return `${dev}-${ino}-${mtimeNs}`
}

async function identityAt(path: string): Promise<string | undefined> {
  try {
    return identityOf(await lstat(path, { bigint: true }))
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return undefined
    throw asFileFault(cause, path)
  }
}

async function linkIfThere(from: string, to: string): Promise<void> {
  try {
    await link(from, to)
  } catch (cause) {
    // Nothing to keep, or kept already by the same task.
    if (codeOf(cause) !== 'ENOENT' && codeOf(cause) !== 'EEXIST') throw asFileFault(cause, from)
  }
}
