/**
 * The next container's copy of a kept tree, made before anybody asks for it: then making a container is a rename.
 *
 * There is one at most, of the tree used last; it goes when that was not used for as long as a process waits for its
 * task, and is not made where room is short. It is not synced, so it is known by the boot it was made in, and none
 * outlives its boot. It appears by a rename, is taken by a rename and is dropped by a rename first, so that whoever
 * comes second finds nothing, and nobody has half of one.
 */
import { readFileSync } from 'node:fs'
import { mkdir, readdir, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { freeBytes } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { removeTree } from '#host/files/remove-tree.ts'
import { copyHalves } from './tree-halves.ts'

/** For how long after the last use somebody may want another. */
export const wantedMs = 10 * 60_000
/** Of what is free, it takes no more than this part. */
const partOfFree = 0.02
const [prefix, making, gone] = ['.next-', '.next.making', '.next.gone']

function nameOf(key: string): string {
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').slice(0, 8)
  return `${prefix}${boot}-${key}`
}

/** Puts it in the place of an empty folder. False where there is none, or that is on another file system. */
export async function takeNext(directory: string, key: string, rootfs: string): Promise<boolean> {
  return rename(join(directory, nameOf(key)), rootfs).then(
    () => true,
    () => false,
  )
}

/**
 * Makes the one that is wanted, and removes all others. One process at a time.
 * @param wanted the kept tree of that name, and how large it is
 */
export async function keepNext(
  host: Host,
  directory: string,
  wanted: { readonly key: string; readonly bytes: number } | undefined,
  signal: AbortSignal,
): Promise<void> {
  const isWanted = wanted !== undefined && wanted.bytes < (await freeBytes(directory)) * partOfFree
  const name = isWanted ? nameOf(wanted.key) : undefined
  const [makingPath, gonePath] = [join(directory, making), join(directory, gone)]
  const there = await readdir(directory)
  for (const one of there.filter((other) => other.startsWith(prefix) && other !== name)) {
    await removeTree(host, gonePath)
    await rename(join(directory, one), gonePath).catch(() => {})
  }
  for (const path of [gonePath, makingPath]) await removeTree(host, path)
  if (name === undefined || there.includes(name)) return
  await mkdir(makingPath, { mode: 0o700 })
  await copyHalves(host, join(directory, wanted?.key ?? ''), makingPath, { signal, isPatient: true })
  await rename(makingPath, join(directory, name))
}
