/**
 * A file that is written once, in large pieces, past the page cache where the file system can do that.
 *
 * What comes is small (TLS delivers 16 KiB at a time, a chunk of a backup has some 60), and a write costs a way through the
 * thread pool and the kernel whatever its size. One piece is filled while the other is being written.
 */
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { KiB } from '#base/bytes.ts'
import { letGo } from '#base/let-go.ts'
import { alignedBuffer, blockBytes, openDirect } from './direct-file.ts'
import { codeOf } from '../files.ts'

const pieceBytes = 512 * KiB

export interface GatheredFile extends AsyncDisposable {
  /** The bytes may be used for something else when it resolves. */
  readonly write: (bytes: Uint8Array) => Promise<void> | void
  /** Resolves when everything is written. */
  readonly flush: () => Promise<void>
  /** What was flushed survives power loss. */
  readonly sync: () => Promise<void>
}

/**
 * Creates the file (mode 0600).
 * @param onPiece sees all that is written, in order, before it is
 * @throws Error of the file system, EEXIST included
 */
export async function openGathered(path: string, onPiece?: (bytes: Uint8Array) => void): Promise<GatheredFile> {
  let file = await created(path)
  let [piece, other] = [alignedBuffer(pieceBytes), alignedBuffer(pieceBytes)]
  let [filled, sizeBytes, writtenBytes] = [0, 0, 0]
  let isPlain = false
  let writing: Promise<unknown> = Promise.resolve()

  async function turn(): Promise<void> {
    await writing
    onPiece?.(piece.subarray(0, filled))
    const wholeBlocks = Math.ceil(filled / blockBytes) * blockBytes
    const full = piece.fill(0, filled, wholeBlocks).subarray(0, wholeBlocks)
    ;[piece, other, filled] = [other, piece, 0]
    writing = writeWhole(full)
    // Whoever writes next, or flushes, hears of a failure.
    writing.catch(() => {})
  }

  async function writeWhole(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length;) at += await writeSome(bytes.subarray(at))
  }

  async function writeSome(bytes: Buffer): Promise<number> {
    try {
      const { bytesWritten } = await file.write(bytes, 0, bytes.length, writtenBytes)
      writtenBytes += bytesWritten
      return bytesWritten
    } catch (error) {
      if (codeOf(error) !== 'EINVAL' || isPlain) throw error
      // This file system takes direct writes of another shape only.
      const direct = file
      ;[file, isPlain] = [await open(path, constants.O_WRONLY), true]
      await direct.close()
      return writeSome(bytes)
    }
  }

  function take(bytes: Uint8Array): void {
    piece.set(bytes, filled)
    filled += bytes.length
  }

  async function writeRest(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      if (filled === pieceBytes) await turn()
      const part = bytes.subarray(at, at + pieceBytes - filled)
      take(part)
      at += part.length
    }
  }

  return {
    write(bytes) {
      sizeBytes += bytes.length
      if (filled + bytes.length > pieceBytes) return writeRest(bytes)
      take(bytes)
    },
    async flush() {
      await turn()
      await writing
      // The last block was filled up.
      await file.truncate(sizeBytes)
    },
    sync: () => file.datasync(),
    async [Symbol.asyncDispose]() {
      await writing.catch(() => {})
      await file.close()
      for (const buffer of [piece, other]) letGo(buffer)
    },
  }
}

async function created(path: string): Promise<FileHandle> {
  const flags = constants.O_WRONLY | constants.O_CREAT
  return (await openDirect(path, flags | constants.O_EXCL, 0o600)) ?? open(path, flags, 0o600)
}
