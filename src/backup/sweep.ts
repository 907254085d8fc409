/**
 * Gives back space: of packs no backup refers to, and of what interrupted writers and removes left.
 *
 * Mark: the pack names at the end of every index and tree. Sweep: every other pack. It does nothing while a
 * writer or a reader lives, and nobody can begin to write while it runs. An index that cannot be read
 * might refer to anything, so then no pack is deleted. Rejected: counting references, which one
 * crash makes wrong for ever.
 */
import { existsSync } from 'node:fs'
import { readdir, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Fault, messageOf } from '#base/fault.ts'
import { asDigest, type Digest } from '#base/ids.ts'
import type { Log } from '#base/log.ts'
import { asFileFault, codeOf, readIfPresent } from '#host/files.ts'
import { type BackupId, printBackupId } from '#datastore/backup-id.ts'
import { HeldFile } from '#datastore/held-file.ts'
import { IndexReader } from './index-file.ts'
import type { Layout } from './layout.ts'
import { parseManifest, treesOf } from './manifest.ts'
import { TreeFileReader } from './tree/tree-file.ts'

export type SweepResult =
  | { readonly state: 'swept'; readonly packs: number }
  | { readonly state: 'postponed'; readonly reason: string }

/**
 * True when something in `writers/` or `readers/` may be a leftover. A writer's space waits for everybody; whoever
 * reads or marks and is killed leaves little, but nobody else would find it.
 */
export async function isSweepNeeded(layout: Layout): Promise<boolean> {
  if ((await namesIn(layout.writers())).length > 0) return true
  return (await namesIn(layout.readers())).some((name) => !isHeld(join(layout.readers(), name)))
}

export async function sweep(
  layout: Layout,
  ids: () => Promise<BackupId[]>,
  { log }: { readonly log: Log },
): Promise<SweepResult> {
  const lock = HeldFile.tryHold(layout.lock())
  if (!lock) return { state: 'postponed', reason: 'somebody else sweeps or begins to write' }
  try {
    // What is there when the sweep begins; nobody can add to it while the lock is held.
    const [writers, readers] = [await namesIn(layout.writers()), await namesIn(layout.readers())]
    const alive = [
      ...writers.filter((name) => isHeld(join(layout.writers(), name, 'held'))),
      ...readers.filter((name) => isHeld(join(layout.readers(), name))),
    ]
    if (alive.length > 0) return { state: 'postponed', reason: `${alive.length} writers or readers are at work` }
    let packs = 0
    try {
      packs = await sweepPacks(layout, await usedPacks(layout, await ids()))
    } catch (cause) {
      log.warn('no pack was deleted, because a backup cannot be read', { datastore: layout.root, cause })
      await empty(layout, writers)
      return { state: 'postponed', reason: messageOf(cause) }
    }
    await sweepMarks(layout, await ids())
    for (const name of writers) await rm(join(layout.writers(), name), { recursive: true, force: true })
    for (const name of readers) await rm(join(layout.readers(), name), { force: true })
    return { state: 'swept', packs }
  } finally {
    lock.release()
  }
}

/** The directories stay: they say that packs may be left over. */
async function empty(layout: Layout, writers: readonly string[]): Promise<void> {
  for (const writer of writers) {
    for (const name of await namesIn(join(layout.writers(), writer))) {
      await rm(join(layout.writers(), writer, name), { recursive: true, force: true })
    }
  }
}

/** Packs some backup needs. @throws Fault when a backup cannot be read */
async function usedPacks(layout: Layout, ids: readonly BackupId[]): Promise<Set<Digest>> {
  const used = new Set<Digest>()
  for (const id of ids) for (const pack of await packsOf(layout, id)) used.add(pack)
  return used
}

export async function packsOf(layout: Layout, id: BackupId): Promise<Set<Digest>> {
  const name = printBackupId(id)
  const text = await readIfPresent(layout.manifest(id))
  const packs = new Set<Digest>()
  // Not removed meanwhile, as that needs the lock: it was damaged by other hands.
  if (text === undefined) throw new Fault('damaged', `backup ${name} has no manifest`)
  const manifest = parseManifest(text, `the manifest of backup ${name}`)
  for (const disk of manifest.disks) {
    await using index = await IndexReader.open(layout.index(id, disk.name), `index ${disk.name} of backup ${name}`)
    for (const pack of index.packs) packs.add(pack)
  }
  for (const tree of treesOf(manifest)) {
    await using file = await TreeFileReader.open(layout.tree(id, tree.name), `tree ${tree.name} of backup ${name}`)
    for (const pack of file.packs) packs.add(pack)
  }
  return packs
}

async function sweepPacks(layout: Layout, used: ReadonlySet<Digest>): Promise<number> {
  let count = 0
  for await (const pack of allPacks(layout)) {
    if (used.has(pack)) continue
    await rm(layout.pack(pack), { force: true })
    await rm(layout.suspect(pack), { force: true })
    count += 1
  }
  return count
}

/** Marks are written before their backup becomes visible, and removed after it vanished. */
async function sweepMarks(layout: Layout, ids: readonly BackupId[]): Promise<void> {
  const wanted = new Set(ids.map((id) => layout.marks(id)))
  for (const type of await namesIn(layout.allMarks())) {
    for (const id of await namesIn(join(layout.allMarks(), type))) {
      for (const name of await namesIn(join(layout.allMarks(), type, id))) {
        const path = join(layout.allMarks(), type, id, name)
        if (!wanted.has(path)) await rm(path, { force: true })
      }
    }
  }
}

export async function* allPacks(layout: Layout): AsyncGenerator<Digest> {
  for (const group of await namesIn(layout.packs())) {
    for (const name of await namesIn(join(layout.packs(), group))) {
      if (/^[0-9a-f]{64}$/.test(name) && name.startsWith(group)) yield asDigest(name)
    }
  }
}

/** Trying creates the file where there is none: an interrupted remove, or a writer killed before it held one. */
function isHeld(path: string): boolean {
  try {
    using held = HeldFile.tryHold(path)
    return held === undefined
  } catch (cause) {
    // A writer that has just committed takes its directory away; anything else is no answer.
    if (existsSync(dirname(path))) throw cause
    return false
  }
}

async function namesIn(path: string): Promise<string[]> {
  try {
    return await readdir(path)
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return []
    throw asFileFault(cause, path)
  }
}
