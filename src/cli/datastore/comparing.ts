/** `hako datastore find` and `diff`: which backups have a file, and what came, went or changed between two of them. */
import { Fault, isFault } from '#base/fault.ts'
import { differentChunks } from '#datastore/maps/compare.ts'
import { printPoint } from '#datastore/point.ts'
import type { BackupReader } from '#datastore/restore/reader.ts'
import { compareTrees, type TreeDifference } from '#datastore/tree/compare.ts'
import { compileExcludes } from '#datastore/tree/excludes.ts'
import { bytesOf, textOf as shown, type TreeEntry } from '#datastore/tree/reader.ts'
import type { Parsed } from '../arguments.ts'
import type { Terminal } from '../terminal.ts'
import { groupOf, namedAmong, pointNamed } from './naming.ts'
import { withKeys } from './opening.ts'

const rowsMaximum = 100_000

export interface Difference {
  readonly change: 'added' | 'removed' | 'changed'
  readonly part: string
  readonly path?: string
  readonly size?: number | undefined
  /** The size before. */
  readonly was?: number | undefined
  /** Of a disk: bytes in chunks that are not the same. */
  readonly differs?: number
  /** Of an entry of a tree: type, content, target, mode, owner. */
  readonly what?: string
}

/** What is different in the second backup: of trees by entries, of disks by how much of them. */
export async function diffRows(
  [directory, before, after, path = '']: readonly [
    dir: string,
    before: string,
    after: string,
    path: string | undefined,
  ],
  parsed: Parsed,
  terminal: Terminal,
): Promise<Difference[]> {
  return withKeys(directory, parsed, terminal, async (open) => {
    await using old = await open.open(await pointNamed(open.datastore, before))
    await using next = await open.open(await pointNamed(open.datastore, after))
    const rows: Difference[] = []
    if (path === '') for (const disk of namesOf(old, next, 'disks')) rows.push(...(await diskRow(old, next, disk)))
    for (const name of namesOf(old, next, 'trees')) {
      for await (const row of treeRows(old, next, name, path)) {
        terminal.signal.throwIfAborted()
        if (rows.push(row) > rowsMaximum) throw tooMany('diff')
      }
    }
    return rows
  })
}

function tooMany(what: string): Fault {
  return new Fault('too-large', `there are more than ${rowsMaximum} lines of ${what}`, {
    remedy: 'Ask for less: name a path, or backups.',
  })
}

function namesOf(old: BackupReader, next: BackupReader, kind: 'disks' | 'trees'): string[] {
  return [...new Set([...old.body[kind], ...next.body[kind]].map(({ name }) => name))].toSorted()
}

async function diskRow(old: BackupReader, next: BackupReader, part: string): Promise<Difference[]> {
  const [was, is] = [old, next].map(({ body }) => body.disks.find(({ name }) => name === part))
  if (!was || !is) return [{ change: is ? 'added' : 'removed', part, size: is?.sizeBytes, was: was?.sizeBytes }]
  const differs = (await differentChunks(await old.mapOf(part), await next.mapOf(part))) * next.chunkBytes
  const isSame = differs === 0 && was.sizeBytes === is.sizeBytes
  return isSame ? [] : [{ change: 'changed', part, size: is.sizeBytes, was: was.sizeBytes, differs }]
}

async function* treeRows(
  old: BackupReader,
  next: BackupReader,
  part: string,
  path: string,
): AsyncGenerator<Difference> {
  const [was, is] = [old, next].map(({ body }) => body.trees.find(({ name }) => name === part))
  if (!was || !is) {
    yield { change: is ? 'added' : 'removed', part, size: is?.dataBytes, was: was?.dataBytes }
    return
  }
  for await (const difference of compareTrees(old.tree(part), next.tree(part), bytesOf(path))) {
    yield treeRow(part, difference)
  }
}

function treeRow(part: string, { before, after, what }: TreeDifference): Difference {
  const entry = after ?? before
  return {
    change: !before ? 'added' : !after ? 'removed' : 'changed',
    part,
    path: `/${shown(entry?.path ?? '')}${entry?.kind === 'directory' ? '/' : ''}`,
    size: after?.sizeBytes,
    was: before?.sizeBytes,
    ...(what.length > 0 && { what: what.join(', ') }),
  }
}

/** One version of an entry, in however many backups of a guest it is. */
export interface Version {
  readonly path: string
  readonly type: string
  readonly size: number
  readonly mtime: number
  readonly part: string
  readonly backups: number
  /** The first of them. */
  readonly since: string
  /** The last. */
  readonly backup: string
}

/** Entries by a pattern, as `--exclude` has them: from any folder, or with `/` in front from the top. */
export async function findRows(
  [directory, pattern, ...names]: readonly [dir: string, pattern: string, ...names: string[]],
  parsed: Parsed,
  terminal: Terminal,
): Promise<Version[]> {
  const isMeant = compileExcludes([pattern])
  if (!isMeant)
    throw new Fault('invalid', `pattern: '${pattern}' means nothing`, { remedy: 'Name a file: *.odt, /etc/*.' })
  return withKeys(directory, parsed, terminal, async (open) => {
    const versions = new Map<string, Version>()
    const points = (await open.datastore.points()).map((point) => ({ point }))
    for (const { point } of namedAmong(points, names)) {
      const backup = printPoint(point)
      terminal.show(backup, true)
      // What was removed meanwhile is not among them; what is damaged is told, and the others are looked at.
      const reader = await open.open(point).catch((fault: unknown) => unlessFatal(fault, terminal))
      if (!reader) continue
      await using _reader = reader
      for (const { name: part } of reader.body.trees) {
        try {
          for await (const entry of reader.tree(part).entries()) {
            terminal.signal.throwIfAborted()
            if (entry.path === '' || !isMeant(entry.path)) continue
            // The facts of a file stand with the first of its names.
            const facts = entry.kind === 'hard link' ? await reader.tree(part).entry(entry.target ?? '') : entry
            keepVersion(versions, { part, entry, facts, backup, group: groupOf(point) })
            if (versions.size > rowsMaximum) throw tooMany('find')
          }
        } catch (fault) {
          unlessFatal(fault, terminal)
        }
      }
    }
    return [...versions.values()].toSorted((a, b) => compare(a.path, b.path) || compare(a.since, b.since))
  })
}

function unlessFatal(fault: unknown, terminal: Terminal): undefined {
  if (!isFault(fault, 'damaged') && !isFault(fault, 'missing')) throw fault
  terminal.show(fault.message)
}

function keepVersion(
  versions: Map<string, Version>,
  found: { part: string; entry: TreeEntry; facts: TreeEntry; backup: string; group: string },
): void {
  const { part, backup, group } = found
  const { path, kind } = found.entry
  const { sizeBytes, modified } = found.facts
  const key = JSON.stringify([group, part, path, kind, sizeBytes, modified.seconds, modified.nanoseconds])
  const known = versions.get(key)
  if (known) versions.set(key, { ...known, backups: known.backups + 1, backup })
  else {
    const facts = { path: `/${shown(path)}`, type: kind, size: sizeBytes, mtime: modified.seconds }
    versions.set(key, { ...facts, part, backups: 1, since: backup, backup })
  }
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
