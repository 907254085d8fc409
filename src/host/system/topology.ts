/** What the machine's processors and memory are made of, as `/sys` tells it. */
import { readdir } from 'node:fs/promises'
import { arch, availableParallelism } from 'node:os'
import { join } from 'node:path'
import { codeOf, readIfPresent } from '../files.ts'

/** Numbers of the processors that run: `0-3,8` as the kernel writes it. */
export async function onlineProcessors(root = '/sys'): Promise<string> {
  return ((await readIfPresent(join(root, 'devices/system/cpu/online'))) ?? '0').trim()
}

/** What this machine's programs are made for, as Debian calls it. */
export function nodeArchitecture(): 'amd64' | 'arm64' {
  return arch() === 'arm64' ? 'arm64' : 'amd64'
}

/** How many processors this program may use, which is what the machine has unless somebody holds it to fewer. */
export function processorCount(): number {
  return availableParallelism()
}

/** Numbers of the memory nodes; a machine without such has node 0. */
export async function memoryNodes(root = '/sys'): Promise<number[]> {
  try {
    const names = await readdir(join(root, 'devices/system/node'))
    return names.flatMap((name) => /^node(\d+)$/.exec(name)?.[1] ?? []).map(Number)
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return [0]
    throw cause
  }
}

/** Huge pages of that size nobody uses; undefined where the machine has no such pages at all. */
export async function freeHugePages(pageBytes: number, root = '/sys'): Promise<number | undefined> {
  const directory = join(root, 'kernel/mm/hugepages', `hugepages-${pageBytes / 1024}kB`)
  const text = await readIfPresent(join(directory, 'free_hugepages'))
  return text === undefined ? undefined : Number(text)
}
