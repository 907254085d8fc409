/**
 * A lock on a folder, for one holder among all processes of the machine. The kernel takes it back when the holder ends,
 * however it ends, so there is no stale lock, and nothing of it lies in the folder.
 *
 * Rejected: a file that names its holder. Of two who find the same dead holder the slower one removes what the faster
 * one has just taken.
 */
import { open } from 'node:fs/promises'
import ffi from 'node:ffi'
import { waitFor } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'

const [LOCK_EX, LOCK_NB] = [2, 4]
const [EINTR, EWOULDBLOCK] = [4, 11]

let loaded: ReturnType<typeof load> | undefined
const libc = () => (loaded ??= load())

function load() {
  return ffi.dlopen('libc.so.6', {
    flock: { arguments: ['i32', 'i32'], return: 'i32' },
    __errno_location: { arguments: [], return: 'pointer' },
  }).functions
}

/**
 * Waits until nobody else holds the folder, in this process or another, and gives it back on disposal.
 * @throws Fault `timeout`
 */
export async function holdFolder(
  path: string,
  { timeoutMs, signal }: { readonly timeoutMs: number; readonly signal?: AbortSignal | undefined },
): Promise<AsyncDisposable> {
  const folder = await open(path, 'r')
  try {
    await waitFor(() => lockFile(folder.fd, path), { what: `the lock on '${path}'`, timeoutMs, everyMs: 5, signal })
  } catch (fault) {
    await folder.close()
    throw fault
  }
  return { [Symbol.asyncDispose]: () => folder.close() }
}

/** The same for anything that is open, until it is closed. False when somebody else holds it. */
export function lockFile(fd: number, path: string): boolean {
  if (libc().flock(fd, LOCK_EX | LOCK_NB) === 0) return true
  // Read at once: anything in between may overwrite it.
  const errno = ffi.getInt32(libc().__errno_location())
  if (errno === EWOULDBLOCK || errno === EINTR) return false
  throw new Fault('failed', `'${path}' could not be locked (errno ${errno})`)
}
