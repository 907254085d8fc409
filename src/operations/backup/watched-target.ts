/**
 * A target that is watched while a disk is restored to it: how long it took, and what was written, named by a digest.
 *
 * The digest is the SHA-256 over the SHA-256s of each 128 KiB. It pins the whole content as a plain SHA-256 of the image
 * would, but costs nothing where the disk is empty, and needs no key.
 */
import { createHash, hash, type Hash } from 'node:crypto'
import { KiB } from '#base/bytes.ts'
import type { BlockTarget } from '#datastore/restore/block-target.ts'

const stepBytes = 128 * KiB

export interface WatchedTarget extends BlockTarget {
  /** Time spent waiting for the target, its last sync included. */
  readonly writeMs: number
  /** Of all that was written, the rest being zeros; once, in the end. Nothing when nobody asked for it. */
  readonly digest: () => string | undefined
}

/** Writes must begin in order. */
export function watchedTarget(
  target: BlockTarget,
  { sizeBytes, isNamed }: { readonly sizeBytes: number; readonly isNamed: boolean },
): WatchedTarget {
  const digest = isNamed ? new DiskDigest(sizeBytes) : undefined
  // Several may be under way at once.
  let [writeMs, underWay, since] = [0, 0, 0]
  const timed = async (work: () => Promise<void>) => {
    if (underWay === 0) since = performance.now()
    underWay += 1
    try {
      await work()
    } finally {
      underWay -= 1
      if (underWay === 0) writeMs += performance.now() - since
    }
  }
  return {
    sizeBytes: target.sizeBytes,
    get writeMs() {
      return writeMs
    },
    async write(offset, bytes) {
      digest?.add(offset, bytes)
      await timed(() => target.write(offset, bytes))
    },
    flush: () => timed(() => target.flush()),
    digest: () => digest?.end(),
    [Symbol.asyncDispose]: () => target[Symbol.asyncDispose](),
  }
}

const zeros = Buffer.alloc(stepBytes)
const zeroDigest = hash('sha256', zeros, 'buffer')

class DiskDigest {
  readonly #sizeBytes: number
  readonly #all: Hash = createHash('sha256')
  #step: Hash | undefined
  #at = 0

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes
  }

  add(offset: number, bytes: Uint8Array): void {
    this.#zerosUntil(offset)
    for (let done = 0; done < bytes.length;) {
      const part = bytes.subarray(done, done + this.#left())
      this.#feed(part)
      done += part.length
    }
  }

  end(): string {
    this.#zerosUntil(this.#sizeBytes)
    this.#endStep()
    return this.#all.digest('hex')
  }

  /** Of the step that is being filled. */
  #left(): number {
    return stepBytes - (this.#at % stepBytes)
  }

  #zerosUntil(offset: number): void {
    while (this.#at < offset) {
      const length = Math.min(this.#left(), offset - this.#at)
      if (length < stepBytes) this.#feed(zeros.subarray(0, length))
      else {
        this.#all.update(zeroDigest)
        this.#at += stepBytes
      }
    }
  }

  #feed(part: Uint8Array): void {
    this.#step ??= createHash('sha256')
    this.#step.update(part)
    this.#at += part.length
    if (this.#at % stepBytes === 0) this.#endStep()
  }

  #endStep(): void {
    if (!this.#step) return
    this.#all.update(this.#step.digest())
    this.#step = undefined
  }
}
