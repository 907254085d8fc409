/**
 * Walking through control groups, down to the last one. Whoever is in a group may have made others below it, of any
 * kind and as deep as memory goes; where a path could become longer than paths may be, the way goes on from an open group.
 */
import { constants } from 'node:fs'
import { open, readdir, rmdir } from 'node:fs/promises'
import { codeOf, readIfPresent } from '../files.ts'

/** Pids of the group and of those below it; none of a group that is not there. */
export async function pidsBelow(directory: string): Promise<number[]> {
  await using group = await openGroup(directory)
  if (!group) return []
  const pids = (await ownProcesses(group.path)).split('\n').filter(Boolean).map(Number)
  // One after the other: what is open at once is as many as they are deep.
  for (const name of await childrenOf(group.path)) pids.push(...(await pidsBelow(`${group.path}/${name}`)))
  return pids
}

/** Removes the group with those below it; false when one of them is still in use. */
export async function isRemoved(directory: string): Promise<boolean> {
  {
    await using group = await openGroup(directory)
    if (!group) return true
    for (const name of await childrenOf(group.path)) if (!(await isRemoved(`${group.path}/${name}`))) return false
  }
  try {
    await rmdir(directory)
  } catch (cause) {
    if (codeOf(cause) === 'EBUSY' || codeOf(cause) === 'ENOTEMPTY') return false
    unlessGone(cause)
  }
  return true
}

export async function childrenOf(directory: string): Promise<string[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true })
    return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name)
  } catch (cause) {
    unlessGone(cause)
    return []
  }
}

export function unlessGone(cause: unknown): void {
  if (codeOf(cause) !== 'ENOENT' && codeOf(cause) !== 'ENODEV') throw cause
}

/** Long before a path, with the longest name added to it, is too long. */
const longPath = 2_000

async function openGroup(directory: string) {
  if (directory.length < longPath) return { path: directory, [Symbol.asyncDispose]: async () => {} }
  try {
    const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY)
    return { path: `/proc/self/fd/${handle.fd}`, [Symbol.asyncDispose]: () => handle.close() }
  } catch (cause) {
    unlessGone(cause)
    return undefined
  }
}

async function ownProcesses(group: string): Promise<string> {
  try {
    return (await readIfPresent(`${group}/cgroup.procs`)) ?? ''
  } catch (cause) {
    // Of a group of threads: the group around it has the processes.
    if (['EOPNOTSUPP', 'ENOTSUP', 'ENODEV'].includes(codeOf(cause) ?? '')) return ''
    throw cause
  }
}
