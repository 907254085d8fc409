/** `hako datastore backup --dry-run`: what would be taken in, and what left out. Neither a key nor the datastore is needed. */
import { resolve } from 'node:path'
import { treeSource } from '#datastore/tree/source.ts'
import type { Parsed } from '../arguments.ts'
import type { Terminal } from '../terminal.ts'
import { isDirectory, leavesCaches } from './file-acts.ts'
import { type ImageFormat, sourceAt } from './source.ts'

export interface Wished {
  readonly source: string
  /** Of a directory: with itself. */
  readonly entries?: number
  readonly size: number
  /** Without holes and what is known to be zero. */
  readonly data?: number
  readonly excluded?: number
  /** Mounted file systems that are not entered. */
  readonly mounts?: number
  /** A few paths of what is left out. */
  readonly examples?: readonly string[]
}

export async function wouldBackUp(
  paths: readonly string[],
  params: Parsed['params'],
  format: ImageFormat | undefined,
  { signal }: Terminal,
): Promise<Wished[]> {
  const rows: Wished[] = []
  for (const path of paths) {
    rows.push((await isDirectory(path)) ? wouldTree(path, params, signal) : await wouldDisk(path, format))
  }
  return rows
}

function wouldTree(path: string, params: Parsed['params'], signal: AbortSignal): Wished {
  const { exclude = [] } = params
  const source = treeSource({ root: resolve(path), excludes: [exclude].flat(), leavesCaches: leavesCaches(params) })
  let [entries, size] = [0, 0]
  for (const folder of source.folders()) {
    signal.throwIfAborted()
    for (const { kind, sizeBytes } of folder.entries()) {
      entries += 1
      if (kind === 'file') size += sizeBytes
    }
  }
  const { excluded, mounts, examples } = source.notes()
  return { source: resolve(path), entries, size, excluded, mounts, examples }
}

async function wouldDisk(path: string, format: ImageFormat | undefined): Promise<Wished> {
  await using source = await sourceAt(path, format)
  let data = 0
  for await (const { length, isZero } of source.extents()) if (!isZero) data += length
  return { source: resolve(path), size: source.sizeBytes, data }
}
