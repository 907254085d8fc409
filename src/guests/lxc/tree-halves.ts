/**
 * A tree kept as two of about the same weight, so that two programs can copy it at once, which takes half of the time.
 *
 * Of the folders in it, `folders` has the folders both halves share, empty; `0` and `1` have these and what lies in them, each
 * thing in one of the two. Files with several names stay together. All are copied into one place: whoever of the two
 * leaves a shared folder last gives it its times and owner.
 */
import { lstat, mkdir, readdir, rename, rmdir, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { allDone } from '#base/all-done.ts'
import { KiB } from '#base/bytes.ts'
import { copyTree, packFolders, unpackFolders } from '#host/files/copy-tree.ts'
import type { Host } from '#host/host.ts'

const shared = 'folders'
const halves = ['0', '1'] as const
/** A folder heavier than this part of the tree is shared, unless it is deep. */
const [heavyPart, deepest] = [0.2, 3]
/** What it costs to make a file, in bytes of content. */
const entryBytes = 64 * KiB

/** Something that goes into one of the halves with all that lies in it. */
export interface Unit {
  /** Below the root: `usr/lib/x`. */
  readonly path: string
  readonly weight: number
  /** A file in it may have another name elsewhere. */
  readonly hasLinks: boolean
  /** What it consists of, where it is a folder. */
  readonly units?: readonly Unit[]
}

/** Copies `tree` into `place`, an empty folder, as halves. */
export async function keepHalves(host: Host, tree: string, place: string): Promise<void> {
  const [first, second] = [join(place, halves[0]), join(place, halves[1])]
  await copyTree(host, { source: tree, target: first })
  // What an image of ext4 has of its own belongs to no tree.
  if ((await stat(tree)).dev !== (await stat(dirname(tree))).dev) await rmdir(join(first, 'lost+found')).catch(() => {})
  const { folders, units } = partsOf(await weighed(first, ''))
  const archive = join(place, `${shared}.tar`)
  await packFolders(host, { source: tree, folders, archive })
  for (const target of [join(place, shared), second]) {
    await mkdir(target)
    await unpackFolders(host, { archive, target })
  }
  for (const path of secondHalf(units)) await rename(join(first, path), join(second, path))
  // The moves have changed the times of the folders.
  for (const target of [first, second]) await unpackFolders(host, { archive, target })
}

/** Copies what was kept in `place` into `target`, an empty folder. */
export async function copyHalves(
  host: Host,
  place: string,
  target: string,
  how: { readonly signal?: AbortSignal | undefined; readonly isPatient?: boolean } = {},
): Promise<void> {
  // Two programs that make the same folder at once would be in each other's way.
  const names = await readdir(join(place, shared), { recursive: true })
  for (const name of names.toSorted()) await mkdir(join(target, name), { mode: 0o700 })
  await allDone(halves.map((half) => copyTree(host, { source: join(place, half), target, ...how })))
}

/** What lies deeper than folders are shared is weighed and forgotten. */
async function weighed(tree: string, path: string, depth = 0): Promise<Unit> {
  const facts = await lstat(join(tree, path))
  const own = entryBytes + (facts.isFile() ? facts.blocks * 512 : 0)
  if (!facts.isDirectory()) return { path, weight: own, hasLinks: facts.nlink > 1 }
  const units: Unit[] = []
  for (const name of await readdir(join(tree, path))) units.push(await weighed(tree, join(path, name), depth + 1))
  const weight = units.reduce((sum, unit) => sum + unit.weight, own)
  const hasLinks = units.some((unit) => unit.hasLinks)
  return depth > deepest ? { path, weight, hasLinks } : { path, weight, hasLinks, units }
}

/** The folders both halves have, outermost first, and what is to be divided between them. */
export function partsOf(root: Unit): { folders: string[]; units: Unit[] } {
  const folders: string[] = []
  const units: Unit[] = []
  const divide = (unit: Unit, depth: number) => {
    const isShared = unit.units !== undefined && (depth === 0 || unit.weight > root.weight * heavyPart)
    if (!isShared || depth > deepest) return void units.push(unit)
    folders.push(unit.path === '' ? '.' : unit.path)
    for (const one of unit.units ?? []) divide(one, depth + 1)
  }
  divide(root, 0)
  return { folders, units }
}

/** The heaviest of those that may go alone, as long as they weigh less than what stays. */
export function secondHalf(units: readonly Unit[]): string[] {
  const half = units.reduce((sum, { weight }) => sum + weight, 0) / 2
  const gone: string[] = []
  let weight = 0
  for (const unit of units.toSorted((a, b) => b.weight - a.weight)) {
    if (unit.hasLinks || weight + unit.weight > half) continue
    gone.push(unit.path)
    weight += unit.weight
  }
  return gone
}
