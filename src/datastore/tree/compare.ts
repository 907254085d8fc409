/** What differs between two trees: both are in the order of catalogues, so neither is ever held whole. */
import { isFault } from '#base/fault.ts'
import { compareKeys } from './catalogue.ts'
import type { TreeEntry, TreeReader } from './reader.ts'

export interface TreeDifference {
  /** In the first tree; absent: it came. */
  readonly before?: TreeEntry
  /** In the second one; absent: it is gone. */
  readonly after?: TreeEntry
  /** Of what is in both: type, content, target, mode, owner. */
  readonly what: readonly string[]
}

/**
 * A file's content counts as changed when its size or the time of its last change did: what is read are catalogues alone.
 * @param path of a folder or file, each character a byte; '' is all
 * @throws Fault `damaged`, `missing` when neither has it
 */
export async function* compareTrees(before: TreeReader, after: TreeReader, path = ''): AsyncGenerator<TreeDifference> {
  const [olds, news] = [before.entries(path), after.entries(path)]
  let [old, next] = [await first(olds), await first(news)]
  // Neither knows of it: the fault of the one says so.
  if (!old && !next) await before.entry(path)
  while (old || next) {
    const order = !old ? 1 : !next ? -1 : compareKeys(keyOf(old), keyOf(next))
    if (old && next && order === 0) {
      const what = changesOf(old, next)
      if (what.length > 0) yield { before: old, after: next, what }
    } else if (old && order < 0) yield { before: old, what: [] }
    else if (next) yield { after: next, what: [] }
    if (order <= 0) old = await following(olds)
    if (order >= 0) next = await following(news)
  }
}

async function first(entries: AsyncGenerator<TreeEntry>): Promise<TreeEntry | undefined> {
  try {
    return await following(entries)
  } catch (fault) {
    if (isFault(fault, 'missing')) return undefined
    throw fault
  }
}

async function following(entries: AsyncGenerator<TreeEntry>): Promise<TreeEntry | undefined> {
  const { value, done } = await entries.next()
  return done === true ? undefined : value
}

function keyOf({ path, name }: TreeEntry) {
  return { folder: path.slice(0, Math.max(0, path.lastIndexOf('/'))), name, offset: 0 }
}

function changesOf(old: TreeEntry, next: TreeEntry): string[] {
  if (old.kind !== next.kind) return ['type']
  const isMoved = old.device?.major !== next.device?.major || old.device?.minor !== next.device?.minor
  const isOther =
    next.kind === 'file' &&
    (old.sizeBytes !== next.sizeBytes ||
      old.modified.seconds !== next.modified.seconds ||
      old.modified.nanoseconds !== next.modified.nanoseconds)
  return [
    ...(isOther ? ['content'] : []),
    ...(old.target !== next.target || isMoved ? ['target'] : []),
    ...(old.mode !== next.mode ? ['mode'] : []),
    ...(old.uid !== next.uid || old.gid !== next.gid ? ['owner'] : []),
  ]
}
