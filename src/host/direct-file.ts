/**
 * Writing past the page cache. What is large and not read again soon costs as much to copy there as to decrypt, more where
 * the kernel has to find memory for it first, and pushes out what guests need.
 *
 * Direct writes begin and end at multiples of `blockBytes` and come from aligned memory. A file system may want yet another
 * shape, and says so by EINVAL: whoever writes is ready to do it the ordinary way.
 */
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { KiB } from '#base/bytes.ts'
import { codeOf } from './files.ts'

/** No disk has larger sectors. */
export const blockBytes = 4 * KiB

/** @returns nothing where the file system has only the page cache; it may have made the file all the same */
export async function openDirect(path: string, flags: number, mode?: number): Promise<FileHandle | undefined> {
  try {
    return await open(path, flags | constants.O_DIRECT, mode)
  } catch (error) {
    if (codeOf(error) === 'EINVAL') return undefined
    throw error
  }
}

/** From whole pages of memory, which is what V8 gives to buffers that may be resized. */
export function alignedBuffer(bytes: number): Buffer {
  return Buffer.from(new ArrayBuffer(bytes, { maxByteLength: bytes }), 0, bytes)
}
