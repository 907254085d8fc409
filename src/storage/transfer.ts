/**
 * Takes in a file that somebody else has written, such as an upload spooled by the front process.
 *
 * Invariant: the bytes that are hashed are the bytes that become visible. Whoever wrote the file runs under another
 * user and could hold it open and change it after the check, so it is moved only when the kernel says that nobody
 * can write to it any more, and copied otherwise. Links are refused, because a spool is writable by an unprivileged
 * process.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open, rename, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { MiB } from '#base/bytes.ts'
import { Fault, invalid, missing } from '#base/fault.ts'
import { asFileFault, codeOf } from '#host/files.ts'
import { hasNoWriter } from '#host/native.ts'

export const checksumAlgorithms = ['md5', 'sha1', 'sha224', 'sha256', 'sha384', 'sha512'] as const
export interface Checksum {
  readonly algorithm: (typeof checksumAlgorithms)[number]
  /** Hexadecimal, either case. */
  readonly value: string
}

const hexDigits: Readonly<Record<Checksum['algorithm'], number>> = {
  md5: 32,
  sha1: 40,
  sha224: 56,
  sha256: 64,
  sha384: 96,
  sha512: 128,
}
const BLOCK_BYTES = MiB

/** Opens a regular file with one name for reading. @throws Fault `missing`, `denied` */
export async function openForeign(path: string): Promise<FileHandle> {
  let file: FileHandle
  try {
    // Without O_NONBLOCK a pipe in the file's place would hold us for ever.
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') throw missing('file', path, { cause })
    if (codeOf(cause) === 'ELOOP') throw new Fault('denied', `'${path}' is a symbolic link`, { cause })
    throw asFileFault(cause, path)
  }
  const stat = await file.stat()
  if (stat.isFile() && stat.nlink === 1) return file
  await file.close()
  throw new Fault('denied', `'${path}' is not a regular file with one name`)
}

/** @throws Fault `invalid` when the text cannot be a checksum of that kind */
export function requireChecksumShape({ algorithm, value }: Checksum): void {
  const digits = hexDigits[algorithm]
  if (value.length === digits && /^[0-9a-f]+$/i.test(value)) return
  throw invalid({ checksum: `invalid format - ${algorithm} has ${digits} hexadecimal digits` })
}

export interface CopyOptions {
  readonly checksum?: Checksum | undefined
  readonly onProgress?: ((fraction: number) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

/**
 * Copies what `source` holds over the file at `path`.
 * @throws Fault `damaged` when the checksum differs, `aborted`, `exhausted`
 */
export async function copyVerified(source: FileHandle, path: string, options: CopyOptions): Promise<void> {
  const { checksum, onProgress, signal } = options
  await using target = await open(path, 'w', 0o600)
  const { size } = await source.stat()
  const hash = checksum && createHash(checksum.algorithm)
  const block = Buffer.allocUnsafe(BLOCK_BYTES)
  for (let done = 0; ;) {
    if (signal?.aborted) throw new Fault('aborted', 'copying was interrupted')
    const { bytesRead } = await source.read(block, 0, BLOCK_BYTES, done)
    if (bytesRead === 0) break
    const part = block.subarray(0, bytesRead)
    hash?.update(part)
    await writeAll(target, part, done)
    done += bytesRead
    onProgress?.(size === 0 ? 1 : Math.min(1, done / size))
  }
  if (hash && checksum) requireSame(hash.digest(), checksum)
}

/**
 * Moves `from`, which is `source` opened, over the file at `path`, where that is as safe as a copy: on one file
 * system, in a place only root can enter, with no writer left. Then nothing is written twice.
 * @returns false when it has to be copied
 * @throws Fault `damaged` when the checksum differs: it is gone from `source` by then
 */
export async function moveVerified(
  from: FileHandle,
  source: string,
  path: string,
  { checksum, signal }: CopyOptions,
): Promise<boolean> {
  const [folder, { dev, uid }] = [await stat(dirname(source)), await from.stat()]
  const isRoots = uid === 0 && folder.uid === 0 && (folder.mode & 0o077) === 0
  if (!isRoots || dev !== (await stat(path)).dev || !hasNoWriter(from.fd)) return false
  await rename(source, path)
  if (checksum) requireSame(Buffer.from(await checksumOf(path, checksum.algorithm, signal), 'hex'), checksum)
  return true
}

/** The checksum of a file, in hexadecimal. @throws Fault `aborted` */
export async function checksumOf(
  path: string,
  algorithm: Checksum['algorithm'],
  signal?: AbortSignal,
): Promise<string> {
  await using file = await openForeign(path)
  const hash = createHash(algorithm)
  const block = Buffer.allocUnsafe(BLOCK_BYTES)
  for (;;) {
    if (signal?.aborted) throw new Fault('aborted', 'reading was interrupted')
    const { bytesRead } = await file.read(block, 0, BLOCK_BYTES)
    if (bytesRead === 0) return hash.digest('hex')
    hash.update(block.subarray(0, bytesRead))
  }
}

/** One `write` may take less than it was given. */
async function writeAll(target: FileHandle, part: Uint8Array, at: number): Promise<void> {
  for (let from = 0; from < part.length;) {
    from += (await target.write(part, from, part.length - from, at + from)).bytesWritten
  }
}

/** @throws Fault `damaged` in the words clients know */
export function requireSame(found: Buffer, { algorithm, value }: Checksum): void {
  const wanted = Buffer.from(value, 'hex')
  if (wanted.length === found.length && timingSafeEqual(wanted, found)) return
  throw new Fault('damaged', `checksum mismatch: got '${found.toString('hex')}' != expect '${value.toLowerCase()}'`, {
    remedy: `Check the ${algorithm} at the source and send for the file again.`,
  })
}
