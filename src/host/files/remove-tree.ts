/**
 * Removes a directory with everything in it, also one that somebody made to be hard to remove: Node's own `rm` puts
 * paths together, and a tree may be deeper than any path is long. Links are removed and not followed, and what another
 * file system is mounted on stays, with a complaint.
 */
import { lstat } from 'node:fs/promises'
import { codeOf } from '../files.ts'
import type { Host } from '../host.ts'

const timeoutMs = 30 * 60_000

/** Idempotent. @throws Fault `failed` in the words of rm */
export async function removeTree(host: Host, path: string, signal?: AbortSignal): Promise<void> {
  if (!(await isThere(path))) return
  await host.run(['rm', '--recursive', '--force', '--one-file-system', '--', path], { timeoutMs, signal })
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path)
    return true
  } catch (cause) {
    return codeOf(cause) !== 'ENOENT'
  }
}

/** Removes what is in a directory, which stays: something may be mounted there. @throws Fault `failed` */
export async function emptyTree(host: Host, path: string): Promise<void> {
  await host.run(['find', path, '-xdev', '-mindepth', '1', '-delete'], { timeoutMs })
}
