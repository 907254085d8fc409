/**
 * Removes a directory with everything in it, also one that somebody made to be hard to remove: Node's own `rm` puts
 * paths together, and a tree may be deeper than any path is long. Links are removed and not followed, and what another
 * file system is mounted on stays, with a complaint.
 */
import { isThere } from '../files.ts'
import type { Host } from '../host.ts'

const timeoutMs = 30 * 60_000

/** Idempotent. @throws Fault `failed` in the words of rm */
export async function removeTree(host: Host, path: string, signal?: AbortSignal): Promise<void> {
  // Where that cannot be asked, rm says why.
  if (!(await isThere(path).catch(() => true))) return
  await host.run(['rm', '--recursive', '--force', '--one-file-system', '--', path], { timeoutMs, signal })
}

/** Removes what is in a directory, which stays: something may be mounted there. @throws Fault `failed` */
export async function emptyTree(host: Host, path: string): Promise<void> {
  await host.run(['find', path, '-xdev', '-mindepth', '1', '-delete'], { timeoutMs })
}
