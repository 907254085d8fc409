/**
 * What is built once on this machine and kept: images of guests, templates of containers.
 *
 * Invariants: what is there is whole (it appears by one rename), and its name stands for all it was made of. One
 * builder at a time holds the lock; others wait and find what it made. The lock saves work only: of two builders at once
 * one rename would win.
 */
import { createHash } from 'node:crypto'
import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { codeOf, isThere, makeDirectory } from '../files.ts'
import type { Host } from '../host.ts'
import { holdFolder } from './folder-lock.ts'
import { unmountBelow } from '../disks/mount.ts'

const waitMs = 300_000

export interface KeptBuild {
  /** Directory of this kind of build alone. */
  readonly home: string
  /** Names the build; see `keyOf`. */
  readonly key: string
  /** A file every build of this kind has. */
  readonly file: string
  /** Makes what is kept in `result`; `place` is for all else, and goes afterwards. Neither is there for others. */
  readonly make: (place: string, result: string) => Promise<void>
  readonly signal?: AbortSignal | undefined
}

/** Directory of the build: the one that is kept, or a new one. */
export async function keptBuild(host: Host, build: KeptBuild): Promise<string> {
  const { home, key, file, signal } = build
  const target = join(home, key)
  if (await isThere(join(target, file))) return target
  await makeDirectory(home, 0o755)
  await using _lock = await holdFolder(home, { timeoutMs: waitMs, signal })
  if (!(await isThere(join(target, file)))) await makeIn(host, build, target)
  return target
}

async function makeIn(host: Host, { home, make }: KeptBuild, target: string): Promise<void> {
  await sweep(host, home)
  const place = await mkdtemp(join(home, '.build-'))
  try {
    const result = join(place, 'result')
    await mkdir(result)
    // Programs that may little read it, whatever this process leaves others by default.
    await chmod(result, 0o755)
    await make(place, result)
    await publish(result, target)
  } finally {
    await rm(place, { recursive: true, force: true })
  }
}

async function publish(result: string, target: string): Promise<void> {
  try {
    await rename(result, target)
  } catch (cause) {
    // Somebody built the same meanwhile; theirs is as good.
    if (codeOf(cause) !== 'ENOTEMPTY' && codeOf(cause) !== 'EEXIST') throw cause
  }
}

/** Removes what builders that were killed left behind, mounts included. */
async function sweep(host: Host, home: string): Promise<void> {
  for (const name of await readdir(home)) {
    if (!name.startsWith('.build-')) continue
    await unmountBelow(host, join(home, name))
    await rm(join(home, name), { recursive: true, force: true })
  }
}

/**
 * Name of a build: changes with the texts, and with the names and contents of files.
 *
 * @param files paths of files, or of directories with all that is in them
 */
export async function keyOf(texts: readonly string[], files: readonly string[]): Promise<string> {
  const hash = createHash('sha256')
  for (const text of texts) hash.update(`${text}\n`)
  for (const path of files) {
    const inside = await filesBelow(path)
    for (const file of inside) hash.update(`${relative(path, file)}\n`).update(await readFile(file))
  }
  return hash.digest('hex').slice(0, 16)
}

async function filesBelow(path: string): Promise<string[]> {
  try {
    const entries = await readdir(path, { recursive: true, withFileTypes: true })
    return entries.flatMap((entry) => (entry.isFile() ? [join(entry.parentPath, entry.name)] : [])).toSorted()
  } catch (cause) {
    if (codeOf(cause) === 'ENOTDIR') return [path]
    throw cause
  }
}
