/** A few MiB that are in memory already, as a source. */
import type { BlockSource } from '../block-source.ts'

export function memorySource(content: Buffer): BlockSource {
  return {
    sizeBytes: content.length,
    async *extents() {
      if (content.length > 0) yield { offset: 0, length: content.length, isZero: false }
    },
    async read(offset, into) {
      into.set(content.subarray(offset, offset + into.length))
    },
    [Symbol.asyncDispose]: async () => {},
  }
}
