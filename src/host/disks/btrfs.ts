/**
 * btrfs: subvolumes, snapshots and how much they may hold, by its own tool.
 *
 * A subvolume is a folder that can be snapshotted, limited, sent and removed in one act. Those that somebody made
 * inside one are not part of it: a snapshot has empty folders in their place, so whoever takes one looks for them.
 */
import { closeSync, constants, openSync } from 'node:fs'
import { lstat, readdir, statfs } from 'node:fs/promises'
import ffi from 'node:ffi'
import { join } from 'node:path'
import { Fault, isFault } from '#base/fault.ts'
import { codeOf } from '../files.ts'
import type { Argv, Host, RunOptions } from '../host.ts'
import { removeTree } from '../files/remove-tree.ts'
import { runTool } from '../tool.ts'

const magic = 0x9123_683e
/** The root of every subvolume has it. */
const rootInode = 256
const longMs = 10 * 60_000

export async function isOnBtrfs(path: string): Promise<boolean> {
  return (await statfs(path)).type === magic
}

/** Given a path on a btrfs file system. False when there is nothing. */
export async function isSubvolume(path: string): Promise<boolean> {
  try {
    const found = await lstat(path)
    return found.isDirectory() && found.ino === rootInode
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return false
    throw cause
  }
}

export async function createSubvolume(host: Host, path: string): Promise<void> {
  await btrfs(host, ['subvolume', 'create', '--', path])
}

/** @param to is not there yet */
export async function snapshotSubvolume(
  host: Host,
  from: string,
  to: string,
  { isReadOnly }: { readonly isReadOnly: boolean },
): Promise<void> {
  await btrfs(host, ['subvolume', 'snapshot', ...(isReadOnly ? ['-r'] : []), '--', from, to])
}

/** Makes the subvolume one that is only read, or one that can be written again. */
export async function setReadOnly(host: Host, path: string, isReadOnly: boolean): Promise<void> {
  await btrfs(host, ['property', 'set', '-ts', path, 'ro', String(isReadOnly)])
}

/**
 * Removes a subvolume with those inside it, or a folder with the subvolumes that lie in it. Idempotent. Room comes back
 * a little later.
 */
export async function removeSubvolume(host: Host, path: string): Promise<void> {
  if (!(await isSubvolume(path))) {
    for (const file of await filesIn(path)) {
      if (await isSubvolume(join(path, file))) await removeSubvolume(host, join(path, file))
    }
    return removeTree(host, path)
  }
  const nested = await subvolumesIn(host, path)
  if (nested.length > 0) await setReadOnly(host, path, false)
  for (const { id } of nested.toReversed()) {
    await btrfs(host, ['subvolume', 'delete', '--subvolid', String(id), '--', path])
  }
  await btrfs(host, ['subvolume', 'delete', '--', path])
}

async function filesIn(path: string): Promise<string[]> {
  try {
    return await readdir(path)
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT' || codeOf(cause) === 'ENOTDIR') return []
    throw cause
  }
}

export interface Subvolume {
  readonly id: number
  /** Below the one that was asked about. */
  readonly path: string
}

/** Subvolumes somebody made inside this one, outer ones first. */
export async function subvolumesIn(host: Host, path: string): Promise<Subvolume[]> {
  // Only a few file systems have such, and this tells without a look at all there are.
  const { stdout: direct } = await btrfs(host, ['subvolume', 'list', '-o', '--', path])
  if (direct.trim() === '') return []
  const all = parseSubvolumes((await btrfs(host, ['subvolume', 'list', '--', path])).stdout)
  const found: Subvolume[] = []
  for (let above = [subvolumeId(path)]; above.length > 0;) {
    const below = all.filter(({ parent }) => above.includes(parent))
    found.push(...below)
    above = below.map(({ id }) => id)
  }
  return found
}

/** Reads `ID 261 gen 16 top level 260 path a/nest`. */
export function parseSubvolumes(text: string): (Subvolume & { readonly parent: number })[] {
  const lines = text.matchAll(/^ID (\d+) gen \d+ top level (\d+) path (.*)$/gm)
  return [...lines].map(([, id, parent, path = '']) => ({ id: Number(id), parent: Number(parent), path }))
}

const BTRFS_IOC_INO_LOOKUP = 0xd000_9412n
let loaded: ReturnType<typeof load> | undefined
const libc = () => (loaded ??= load())

function load() {
  return ffi.dlopen('libc.so.6', { ioctl: { arguments: ['i32', 'u64', 'pointer'], return: 'i32' } }).functions
}

/** Its number. A subvolume that was made later has a larger one. @throws Fault `failed` */
export function subvolumeId(path: string): number {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
  try {
    const question = Buffer.alloc(4096)
    question.writeBigUInt64LE(BigInt(rootInode), 8)
    if (libc().ioctl(fd, BTRFS_IOC_INO_LOOKUP, question) === 0) return Number(question.readBigUInt64LE(0))
    throw new Fault('failed', `'${path}' is not on a btrfs file system`)
  } finally {
    closeSync(fd)
  }
}

export interface Quota {
  /** What the subvolume refers to, shared with others or not. */
  readonly usedBytes: number
  readonly limitBytes: number | undefined
}

export interface Quotas {
  /** By number of subvolume. */
  readonly of: ReadonlyMap<number, Quota>
  /** They have to be counted again to be true. */
  readonly isStale: boolean
}

/** What is counted on the file system of this path; undefined where nothing is. */
export async function quotasOf(host: Host, path: string): Promise<Quotas | undefined> {
  try {
    const { stdout, stderr } = await btrfs(host, ['qgroup', 'show', '-r', '-e', '--raw', '--', path])
    return { of: parseQuotas(stdout), isStale: /inconsistent/.test(stderr) }
  } catch (fault) {
    if (isFault(fault, 'failed') && /quotas? not enabled/.test(fault.message)) return undefined
    throw fault
  }
}

/** Reads `0/258  8388608  16384  8388608  none  path`; its JSON is wrong where there are limits. */
export function parseQuotas(text: string): Map<number, Quota> {
  const lines = text.matchAll(/^0\/(\d+)\s+(\d+)\s+\d+\s+(none|\d+)\s/gm)
  return new Map(
    [...lines].map(([, id, used, limit]) => [
      Number(id),
      { usedBytes: Number(used), limitBytes: limit === 'none' ? undefined : Number(limit) },
    ]),
  )
}

/** Holds what the subvolume refers to below a size, and begins to count where nobody did. */
export async function limitSubvolume(host: Host, path: string, sizeBytes: number): Promise<void> {
  if (!(await quotasOf(host, path))) await btrfs(host, ['quota', 'enable', path])
  await btrfs(host, ['qgroup', 'limit', String(sizeBytes), path])
}

/** Counts again in the background. Harmless while that is done already. */
export async function countAgain(host: Host, path: string): Promise<void> {
  await btrfs(host, ['quota', 'rescan', '--', path], { okCodes: [0, 1] })
}

/** New content of the file is written in place, and without check sums. For an empty file. */
export async function writeInPlace(host: Host, path: string): Promise<void> {
  await host.run(['chattr', '+C', '--', path])
}

const FS_IOC_GETFLAGS = 0x8008_6601n
const FS_NOCOW_FL = 0x0080_0000

/**
 * True for a file on btrfs of which every block has a check sum. What is written past the page cache may change while
 * it is summed up, as guests do, and would then be taken for damaged.
 */
export async function isSummedUp(path: string): Promise<boolean> {
  if (!(await isOnBtrfs(path))) return false
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const flags = Buffer.alloc(8)
    const isKnown = libc().ioctl(fd, FS_IOC_GETFLAGS, flags) === 0
    return !isKnown || (flags.readUInt32LE(0) & FS_NOCOW_FL) === 0
  } finally {
    closeSync(fd)
  }
}

function btrfs(host: Host, words: readonly string[], options: RunOptions = {}) {
  return runTool(host, ['btrfs', ...words] as Argv, { timeoutMs: longMs, ...options })
}
