/** How the content of a chunk is stored: compressed where that saves at least 3 %. */
import { coding, codingOf } from './format.ts'
import { compressed, decompressInto } from './zstd.ts'

const least = 0.97

export interface StoredForm {
  /** The content itself, or valid until the next call. */
  readonly bytes: Uint8Array
  readonly coding: number
}

/** @param level of zstd, 1 to 19 */
export function storedFormOf(content: Uint8Array, level: number): StoredForm {
  const packed = compressed(content, level)
  return packed.length <= content.length * least
    ? { bytes: packed, coding: coding.zstd }
    : { bytes: content, coding: coding.raw }
}

/** @throws Error when it is not the stored form of content of that size */
export function contentOf(stored: Buffer, flags: number, plainBytes: number): Buffer {
  if (codingOf(flags) === coding.raw) {
    requireSize(stored.length, plainBytes)
    return stored
  }
  const content = Buffer.allocUnsafeSlow(plainBytes)
  contentInto(stored, flags, content)
  return content
}

/**
 * As `contentOf`, into room that is there.
 * @param into as large as the content
 */
export function contentInto(stored: Uint8Array, flags: number, into: Uint8Array): void {
  switch (codingOf(flags)) {
    case coding.raw:
      requireSize(stored.length, into.length)
      into.set(stored)
      return
    case coding.zstd:
      decompressInto(stored, into)
      return
    default:
      throw new Error(`coding ${codingOf(flags)} is unknown`)
  }
}

function requireSize(length: number, plainBytes: number): void {
  if (length !== plainBytes) throw new Error(`it has ${length} bytes instead of ${plainBytes}`)
}
