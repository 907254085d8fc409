/** How the content of a chunk is stored: compressed where that saves at least 3 %. */
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { coding, codingOf } from './format.ts'

const least = 0.97

export interface StoredForm {
  readonly bytes: Uint8Array
  readonly coding: number
}

/** @param level of zstd, 1 to 19 */
export function storedFormOf(content: Uint8Array, level: number): StoredForm {
  // Room for the worst case at once, or the library grows its buffer step by step.
  const chunkSize = content.length + (content.length >> 7) + 512
  const packed = zstdCompressSync(content, { params: { [constants.ZSTD_c_compressionLevel]: level }, chunkSize })
  return packed.length <= content.length * least
    ? { bytes: packed, coding: coding.zstd }
    : { bytes: content, coding: coding.raw }
}

/** @throws Error when it is not the stored form of content of that size */
export function contentOf(stored: Buffer, flags: number, plainBytes: number): Buffer {
  switch (codingOf(flags)) {
    case coding.raw:
      break
    case coding.zstd: {
      // The bound keeps a few hostile bytes from growing into gigabytes.
      const maxOutputLength = Math.max(1, plainBytes)
      return whole(zstdDecompressSync(stored, { maxOutputLength, chunkSize: Math.max(64, plainBytes) }), plainBytes)
    }
    default:
      throw new Error(`coding ${codingOf(flags)} is unknown`)
  }
  return whole(stored, plainBytes)
}

function whole(content: Buffer, plainBytes: number): Buffer {
  if (content.length !== plainBytes) throw new Error(`it has ${content.length} bytes instead of ${plainBytes}`)
  return content
}
