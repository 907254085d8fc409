/**
 * SHA-256 of content, in the three forms it is needed: raw bytes (indexes, packs), text (names,
 * messages) and the *tree digest* of a disk.
 *
 * The tree digest of a disk is the SHA-256 over the SHA-256s of its chunks, in order. It pins the whole
 * content as a plain SHA-256 of the image would, but costs nothing where the disk is empty: a restore
 * has just checked each chunk's digest and knows the one of zeros. Rejected: the plain hash, which
 * would spend half a second per GiB on holes.
 */
import { createHash, hash, type Hash } from 'node:crypto'
import { asDigest, type Digest } from '#base/ids.ts'
import { chunkBytes } from './format.ts'

export const digestBytes = 32

export function digestOf(content: Uint8Array): Buffer {
  return hash('sha256', content, 'buffer')
}

export function textOf(digest: Uint8Array): Digest {
  return asDigest(Buffer.from(digest.buffer, digest.byteOffset, digest.byteLength).toString('hex'))
}

export function digestText(content: Uint8Array | string): Digest {
  return asDigest(hash('sha256', content, 'hex'))
}

const zeros = Buffer.alloc(chunkBytes)
const zeroDigests = new Map<number, Buffer>()

/** Digest of `length` zero bytes, at most a chunk of them. */
export function zeroDigest(length: number): Buffer {
  let digest = zeroDigests.get(length)
  if (!digest) zeroDigests.set(length, (digest = digestOf(zeros.subarray(0, length))))
  return digest
}

const zeroRun = Buffer.concat(Array.from({ length: 256 }, () => zeroDigest(chunkBytes)))

/** Collects the digests of a disk's chunks in order. */
export class TreeDigest {
  readonly #sizeBytes: number
  readonly #hash: Hash = createHash('sha256')
  #next = 0

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes
  }

  /** Adds the chunk at this position; everything skipped since the last one was zero. */
  add(position: number, digest: Uint8Array): void {
    this.#zerosUntil(position)
    this.#hash.update(digest)
    this.#next = position + 1
  }

  end(): Digest {
    this.#zerosUntil(Math.ceil(this.#sizeBytes / chunkBytes))
    return asDigest(this.#hash.digest('hex'))
  }

  #zerosUntil(position: number): void {
    const whole = Math.min(position, Math.floor(this.#sizeBytes / chunkBytes))
    while (this.#next < whole) {
      const count = Math.min(zeroRun.length / digestBytes, whole - this.#next)
      this.#hash.update(zeroRun.subarray(0, count * digestBytes))
      this.#next += count
    }
    // Only the last chunk of a disk may be short.
    if (this.#next < position) this.#hash.update(zeroDigest(this.#sizeBytes - this.#next * chunkBytes))
    this.#next = Math.max(this.#next, position)
  }
}
