/**
 * Files that are either the old or the new, never half: written beside, synced, renamed, directory synced.
 */
import { randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { lstat, mkdir, open, readFile, rename, rm, statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Fault } from '#base/fault.ts'

/**
 * Replaces a file in one act that survives power loss.
 * @param canBeLost a loss of power may leave the old file, the new one, or nothing readable
 */
export async function writeFileAtomic(
  path: string,
  content: string | Uint8Array,
  mode = 0o600,
  canBeLost = false,
): Promise<void> {
  const temporary = join(dirname(path), `.${randomUUID()}.tmp`)
  try {
    const file = await open(temporary, 'wx', mode)
    try {
      await file.writeFile(content)
      if (!canBeLost) await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
    if (!canBeLost) await syncDirectory(dirname(path))
  } catch (cause) {
    await rm(temporary, { force: true })
    throw asFileFault(cause, path)
  }
}

/** Whether a file of this name is one that `writeFileAtomic` had begun when its process died, or is writing now. */
export function isUnfinishedFile(name: string): boolean {
  return /^\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.tmp$/.test(name)
}

/** Makes a rename or unlink inside a directory survive power loss. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

export async function makeDirectory(path: string, mode = 0o711): Promise<void> {
  await mkdir(path, { recursive: true, mode })
}

/** The file's text, or nothing when there is none. */
export async function readIfPresent(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return undefined
    throw asFileFault(cause, path)
  }
}

/** Whether anything has this name, be it a link that leads nowhere. */
export async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path)
    return true
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return false
    throw asFileFault(cause, path)
  }
}

/** Bytes an unprivileged writer may still put on the file system that holds `path`. */
export async function freeBytes(path: string): Promise<number> {
  const { bavail, bsize } = await statfs(path)
  return bavail * bsize
}

export function codeOf(error: unknown): string | undefined {
  // Node has no name for them.
  if (error instanceof Error && 'errno' in error && error.errno === -122) return 'EDQUOT'
  if (error instanceof Error && 'errno' in error && error.errno === -117) return 'EUCLEAN'
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

/** Gives an operating system's error the kind a user understands. */
export function asFileFault(cause: unknown, path: string): unknown {
  if (cause instanceof Fault) return cause
  switch (codeOf(cause)) {
    case 'ENOENT':
      return new Fault('missing', `'${path}' does not exist`, { cause })
    case 'ENOSPC':
    case 'EDQUOT':
      return new Fault('exhausted', `no space left on the device of '${path}'`, {
        cause,
        remedy: 'Free space there, then try again.',
      })
    case 'EFBIG':
      return new Fault('too-large', `the file system of '${path}' holds no file as large as that`, { cause })
    case 'EACCES':
    case 'EPERM':
      return new Fault('denied', `no permission on '${path}'`, { cause })
    case 'EROFS':
      return new Fault('denied', `'${path}' is on a file system that is read-only`, { cause })
    default:
      if (!isDiskError(cause)) return cause
      return new Fault('failed', `the disk of '${path}' reports an error`, {
        cause,
        remedy: 'Look at the disk, and at what the kernel says of it: dmesg.',
      })
  }
}

/** Neither ours nor of who asked: the disk below does not give out, or not take, what it should. */
export function isDiskError(cause: unknown): boolean {
  return ['EIO', 'EUCLEAN'].includes(codeOf(cause) ?? '')
}

/**
 * The last `maxBytes` of a file somebody less trusted owns, or nothing when there is no such plain file.
 * Links are not followed: a sandboxed process could point its log at a file only root may read.
 */
export async function readForeignFile(path: string, maxBytes: number): Promise<Buffer | undefined> {
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    try {
      const facts = await file.stat()
      if (!facts.isFile() || facts.nlink !== 1) return undefined
      const content = Buffer.alloc(Math.min(facts.size, maxBytes))
      const { bytesRead } = await file.read(content, 0, content.length, Math.max(0, facts.size - maxBytes))
      return content.subarray(0, bytesRead)
    } finally {
      await file.close()
    }
  } catch (cause) {
    if (['ENOENT', 'ELOOP', 'ENXIO', 'ENOTDIR'].includes(codeOf(cause) ?? '')) return undefined
    throw cause
  }
}
