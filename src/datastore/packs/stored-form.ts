/** How the content of a chunk is stored: compressed where that saves at least 3 %. */
import { coding, codingOf } from '../format.ts'
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

/**
 * @param room where it is unpacked, as large as the content or larger; without it the content has room of its own
 * @returns the stored bytes themselves when nothing had to be unpacked
 * @throws Error when it is not the stored form of content of that size
 */
export function contentOf(stored: Buffer, flags: number, plainBytes: number, room?: Buffer): Buffer {
  switch (codingOf(flags)) {
    case coding.raw:
      requireSize(stored.length, plainBytes)
      return stored
    case coding.zstd: {
      const content = room ? room.subarray(0, plainBytes) : Buffer.allocUnsafeSlow(plainBytes)
      decompressInto(stored, content)
      return content
    }
    default:
      throw new Error(`coding ${codingOf(flags)} is unknown`)
  }
}

function requireSize(length: number, plainBytes: number): void {
  if (length !== plainBytes) throw new Error(`it has ${length} bytes instead of ${plainBytes}`)
}
