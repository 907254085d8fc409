/**
 * Files of a container that the node writes and people write too.
 *
 * Markers are those people know from Proxmox VE, so that what they wrote there is kept here: what lies between them is
 * the node's, the rest is theirs; and a file `.pve-ignore.NAME` beside a file says that all of it is theirs.
 */
import { basename, dirname } from 'node:path'
import type { Tree, WriteOptions } from './tree.ts'

const begin = '# --- BEGIN PVE ---'
const end = '# --- END PVE ---'
const block = /^# --- BEGIN PVE ---\n(?:[\s\S]*?\n)?# --- END PVE ---\n?/m
/** The first line of files that are the node's as a whole. */
export const ownFile =
  '# The node writes this file from the configuration of the container; what is changed here is lost.'

export async function isTheirs(tree: Tree, path: string): Promise<boolean> {
  return tree.exists(`${dirname(path)}/.pve-ignore.${basename(path)}`)
}

/** Writes a whole file, unless it is theirs. */
export async function putFile(tree: Tree, path: string, content: string, options?: WriteOptions): Promise<void> {
  if (!(await isTheirs(tree, path))) await tree.write(path, content, options)
}

/** Removes a file that is the node's as a whole. */
export async function removeOwn(tree: Tree, path: string): Promise<void> {
  if ((await tree.linkAt(path)) !== undefined || (await isTheirs(tree, path))) return
  if ((await tree.read(path))?.startsWith(ownFile)) await tree.remove(path)
}

/** @param empty what the file says beside the block when there is none yet */
export async function putBlock(tree: Tree, path: string, lines: readonly string[], empty = ''): Promise<void> {
  if (await isTheirs(tree, path)) return
  const before = (await tree.read(path)) ?? empty
  await tree.write(path, withBlock(before, lines))
}

/** The text with the block in it: where it was, or at the end. Without lines, without a block. */
export function withBlock(text: string, lines: readonly string[]): string {
  const made = lines.length === 0 ? '' : `${[begin, ...lines, end].join('\n')}\n`
  if (block.test(text)) return text.replace(block, () => made)
  return text === '' || text.endsWith('\n') ? text + made : `${text}\n${made}`
}

export function hasBlock(text: string): boolean {
  return block.test(text)
}
