/**
 * A file that is whole under its name, or not there: written beside it as `NAME.hako-part`, and given its name at the
 * end in one act that replaces nothing, unless that was asked for.
 *
 * Whoever writes holds a lock on the part, which the kernel takes back when they end, however they end. So a part nobody
 * holds was left by a process that was killed, and whoever comes next removes it; of two at once the second is refused.
 * Its ending is ours alone, so that no file of anybody else is taken for such a part. Rejected: writing on in what was
 * left, as it may belong to another user.
 */
import { constants } from 'node:fs'
import { type FileHandle, lstat, open, rename, rm } from 'node:fs/promises'
import { type Readable, type Transform, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { callbackify } from 'node:util'
import { Fault } from '#base/fault.ts'
import { asFileFault, codeOf } from '../files.ts'
import { renameNew } from './exchange.ts'
import { lockFile } from './folder-lock.ts'

export interface FilePart {
  readonly path: string
  /** Closed by who gave it. */
  readonly file: FileHandle
}

export interface NewFileOptions {
  /** A plain file of that name goes, once the new one is whole. */
  readonly replaces?: boolean
  /** For who is refused because something is there. */
  readonly remedy?: string
}

const attempts = 4
const usualRemedy = 'Name a file that is not, or remove it.'

/**
 * Readable by its owner alone. What `fill` fails at leaves nothing.
 * @throws Fault `conflict` when there is something of that name, or somebody writes it at this moment
 */
export async function writeNewFile<T>(
  path: string,
  fill: (part: FilePart) => Promise<T>,
  { replaces = false, remedy = usualRemedy }: NewFileOptions = {},
): Promise<T> {
  const part = `${path}.hako-part`
  const file = await takePart(part, path)
  try {
    const there = await lstat(path).catch(() => undefined)
    if (there && !replaces) throw isThereAlready(path, remedy)
    if (there && !there.isFile()) throw isThereAlready(path, usualRemedy, ', and no plain file')
    const result = await fill({ path: part, file })
    if (replaces) await rename(part, path)
    else if (!(await renameNew(part, path))) throw isThereAlready(path, remedy)
    return result
  } catch (cause) {
    await rm(part, { force: true })
    throw asFileFault(cause, path)
  } finally {
    await file.close()
  }
}

/** What comes through the steps goes into the file of `writeNewFile`, which stays open. @returns bytes */
export async function pour(
  file: FileHandle,
  [from, ...steps]: readonly [Readable, ...Transform[]],
  signal: AbortSignal,
): Promise<number> {
  let bytes = 0
  // A stream of Node's own would close the file, or never let go of it.
  const into = new Writable({
    write(part: Buffer, _encoding, done) {
      bytes += part.length
      callbackify(() => file.writeFile(part))(done)
    },
  })
  await pipeline([from, ...steps, into], { signal })
  return bytes
}

async function takePart(part: string, path: string): Promise<FileHandle> {
  for (let attempt = 1; attempt <= attempts; attempt += 1) {
    try {
      const file = await open(part, 'wx', 0o600)
      // Until it is locked, somebody else may have taken it for left behind.
      if (await holds(file, part)) return file
      await file.close()
    } catch (cause) {
      if (codeOf(cause) !== 'EEXIST') throw asFileFault(cause, path)
      await removeLeft(part, path)
    }
  }
  throw isBeingWritten(path)
}

async function removeLeft(part: string, path: string): Promise<void> {
  try {
    // A link may lead to anything, and a pipe would wait for somebody.
    await using left = await open(part, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    if (!lockFile(left.fd, part)) throw isBeingWritten(path)
    if (await isStill(left, part)) await rm(part)
  } catch (cause) {
    if (codeOf(cause) !== 'ENOENT') throw asFileFault(cause, part)
  }
}

async function holds(file: FileHandle, part: string): Promise<boolean> {
  return lockFile(file.fd, part) && (await isStill(file, part))
}

/** Whether the name still leads to the file that was opened by it. */
async function isStill(file: FileHandle, path: string): Promise<boolean> {
  const [opened, named] = [await file.stat(), await lstat(path).catch(() => undefined)]
  return opened.ino === named?.ino && opened.dev === named.dev
}

function isThereAlready(path: string, remedy: string, how = ''): Fault {
  return new Fault('conflict', `'${path}' is there already${how}`, { remedy })
}

function isBeingWritten(path: string): Fault {
  return new Fault('conflict', `'${path}' is being written by another process`, {
    remedy: 'Wait until that is done, or name another file.',
  })
}
