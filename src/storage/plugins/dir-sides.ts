/**
 * Files beside an archive, in PVE's way: `<archive>.notes`, `<archive>.protected`, and the log of its making. They
 * are part of the archive: they go with it and come back with it.
 */
import { lstat, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { KiB } from '#base/bytes.ts'
import { asFileFault, codeOf, readForeignFile, syncDirectory, writeFileAtomic } from '#host/files.ts'
import type { Part } from '../plugin.ts'
import type { FileName } from '../volume.ts'
import { hiddenPath } from './dir-volumes.ts'

const notesBytes = 64 * KiB
const notesOf = (path: string) => `${path}.notes`
const protectedOf = (path: string) => `${path}.protected`

function sidesOf(path: string): string[] {
  const log = path.replace(/\.(?:tgz|(?:tar|vma)(?:\.\w+)?)$/, '.log')
  return [notesOf(path), protectedOf(path), ...(log === path ? [] : [log])]
}

/** What lies beside an archive says of it. */
export async function factsBeside(path: string): Promise<{ notes?: string; protected?: boolean }> {
  const notes = (await readForeignFile(notesOf(path), notesBytes))?.toString('utf8').trimEnd()
  return { ...(notes ? { notes } : {}), ...((await isPlainFile(protectedOf(path))) ? { protected: true } : {}) }
}

/** What is undefined stays; empty notes are removed. */
export async function annotateBeside(
  path: string,
  change: { readonly notes?: string | undefined; readonly protected?: boolean | undefined },
): Promise<void> {
  if (change.notes === '') await rm(notesOf(path), { force: true })
  else if (change.notes !== undefined) await writeFileAtomic(notesOf(path), `${change.notes}\n`)
  if (change.protected === false) await rm(protectedOf(path), { force: true })
  else if (change.protected === true) await writeFileAtomic(protectedOf(path), '')
  await syncDirectory(dirname(path))
}

type Leaving = Pick<Part<FileName>, 'path' | 'remove' | 'setAside' | 'bringBack' | 'erase'>

/** The verbs of leaving, for archives together with what lies beside them. */
export function leavingTogether(part: Leaving): Leaving {
  const sides = ({ content }: FileName, path: string) => (content === 'backup' ? sidesOf(path) : [])
  const each = async (name: FileName, act: (side: string) => Promise<void>) => {
    for (const side of sides(name, part.path(name))) await act(side)
  }
  return {
    path: part.path,
    async remove(name) {
      const wasThere = await part.remove(name)
      await each(name, (side) => rm(side, { force: true }))
      return wasThere
    },
    // The archive first: it decides whether there is anything, and without it the rest is nothing.
    async setAside(name, mark) {
      await part.setAside(name, mark)
      await each(name, (side) => moveIfThere(side, hiddenPath(side, 'gone', mark)))
    },
    async bringBack(name, mark) {
      await each(name, (side) => moveIfThere(hiddenPath(side, 'gone', mark), side))
      await part.bringBack(name, mark)
    },
    async erase(name, mark) {
      await part.erase(name, mark)
      await each(name, (side) => rm(hiddenPath(side, 'gone', mark), { force: true }))
    },
  }
}

async function moveIfThere(from: string, to: string): Promise<void> {
  try {
    await rename(from, to)
  } catch (cause) {
    if (codeOf(cause) !== 'ENOENT') throw asFileFault(cause, from)
  }
}

async function isPlainFile(path: string): Promise<boolean> {
  try {
    return (await lstat(path)).isFile()
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return false
    throw asFileFault(cause, path)
  }
}
