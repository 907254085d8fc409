/**
 * A file that is written once, in large pieces, past the page cache where the file system can do that.
 *
 * TLS delivers 16 KiB at a time, and a write costs a way through the thread pool and the kernel whatever its size. One piece
 * is filled while the other is being written.
 */
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { KiB } from '#base/bytes.ts'
import { alignedBuffer, blockBytes, openDirect } from '#host/direct-file.ts'
import { codeOf } from '#host/files.ts'

const pieceBytes = 512 * KiB

export interface GatheredFile extends AsyncDisposable {
  /** The bytes may be used for something else when it resolves. */
  readonly write: (bytes: Buffer) => Promise<void> | void
  /** Resolves when everything is written. */
  readonly flush: () => Promise<void>
}

/** Creates the file (mode 0600). @throws Error of the file system, EEXIST included */
export async function openGathered(path: string): Promise<GatheredFile> {
  let file = await created(path)
  let [piece, other] = [alignedBuffer(pieceBytes), alignedBuffer(pieceBytes)]
  let [filled, sizeBytes, writtenBytes] = [0, 0, 0]
  let isPlain = false
  let writing: Promise<unknown> = Promise.resolve()

  async function turn(): Promise<void> {
    await writing
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

  async function writeRest(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      if (filled === pieceBytes) await turn()
      const copied = bytes.copy(piece, filled, at)
      at += copied
      filled += copied
    }
  }

  return {
    write(bytes) {
      sizeBytes += bytes.length
      if (filled + bytes.length > pieceBytes) return writeRest(bytes)
      filled += bytes.copy(piece, filled)
    },
    async flush() {
      await turn()
      await writing
      // The last block was filled up.
      await file.truncate(sizeBytes)
    },
    async [Symbol.asyncDispose]() {
      await writing.catch(() => {})
      await file.close()
    },
  }
}

async function created(path: string): Promise<FileHandle> {
  const flags = constants.O_WRONLY | constants.O_CREAT
  return (await openDirect(path, flags | constants.O_EXCL, 0o600)) ?? open(path, flags, 0o600)
}
