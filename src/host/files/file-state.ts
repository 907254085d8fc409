/**
 * Whether a file is as it was some time ago, by what the kernel writes down at every change of it and lets nobody set:
 * the time of the change. A rename, another owner or a change of size shows as well; so it may say no where the content
 * is the same, but never yes where somebody wrote.
 *
 * It is only said of file systems this kernel alone writes to, and within one run of it: what a loss of power leaves may
 * have new content under old times. The kernel's clock has ticks, so two changes may bear the same time; a state is told
 * only when the tick of the last change is over (as `git` does with what it calls racy).
 */
import { readFile, stat, statfs } from 'node:fs/promises'
import type { Clock } from '#base/clock.ts'

export interface FileState {
  /** Of the running kernel. */
  readonly boot: string
  readonly device: string
  readonly inode: string
  readonly sizeBytes: string
  readonly writtenNs: string
  readonly changedNs: string
}

/** `f_type` of ext2 to ext4, XFS, btrfs, ZFS and tmpfs. */
const ownFileSystems = new Set([0xef53, 0x58465342, 0x9123683e, 0x2fc12fc1, 0x01021994])
/** Twice the longest tick a kernel is built with. */
const tickMs = 20
const attempts = 5
const secondNs = 1_000_000_000n

/** Nothing where the kernel's word proves nothing. */
export async function fileState(path: string): Promise<FileState | undefined> {
  const [found, { type }] = [await stat(path, { bigint: true }), await statfs(path)]
  if (!found.isFile() || !ownFileSystems.has(type)) return undefined
  // An old file system that keeps whole seconds.
  if (found.ctimeNs % secondNs === 0n) return undefined
  return {
    boot: (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim(),
    device: String(found.dev),
    inode: String(found.ino),
    sizeBytes: String(found.size),
    writtenNs: String(found.mtimeNs),
    changedNs: String(found.ctimeNs),
  }
}

/** As `fileState`, once a later change cannot bear the same time. Nothing for a file that goes on changing. */
export async function settledFileState(path: string, clock: Clock): Promise<FileState | undefined> {
  for (let attempt = 0; attempt < attempts; attempt += 1) {
    const state = await fileState(path)
    if (!state) return undefined
    const ageMs = clock.now() - Number(BigInt(state.changedNs) / 1_000_000n)
    if (ageMs > tickMs) return state
    await clock.sleep(tickMs)
  }
  return undefined
}

export function isSameState(one: FileState, other: FileState): boolean {
  const names = ['boot', 'device', 'inode', 'sizeBytes', 'writtenNs', 'changedNs'] as const
  return names.every((name) => one[name] === other[name])
}
