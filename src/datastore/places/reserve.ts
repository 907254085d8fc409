/**
 * Room set aside in the folder of a datastore, so that garbage can still be collected where everything else is full: the
 * collector writes down what it condemns before anything may go.
 */
import { open, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '#base/bytes.ts'
import type { Random } from '#base/random.ts'
import { asFileFault, codeOf } from '#host/files.ts'

/** Of an empty datastore. */
export const leastReserveBytes = 1 * MiB
const mostReserveBytes = 64 * MiB
/** An entry in a list of what is condemned, and one in a new segment with its share of the filter. */
const bytesPerChunk = 64

/** For a datastore of so many chunks. */
export function reserveBytesFor(chunks: number): number {
  return Math.min(mostReserveBytes, leastReserveBytes + chunks * bytesPerChunk)
}

export class Reserve {
  readonly #path: string
  readonly #staged: string
  readonly #random: Random

  /** @param root of the datastore */
  constructor(root: string, random: Random) {
    this.#path = join(root, 'reserve')
    this.#staged = join(root, 'tmp', 'reserve')
    this.#random = random
  }

  /** Sets aside at least as much, if there is room. */
  async keep(sizeBytes: number): Promise<void> {
    const there = await stat(this.#path).catch(() => undefined)
    if (there && there.size >= sizeBytes) return
    try {
      await rm(this.#staged, { force: true })
      await using file = await open(this.#staged, 'wx', 0o600)
      // Nothing a file system could make smaller.
      for (let left = sizeBytes; left > 0; left -= MiB) await file.writeFile(this.#random.bytes(Math.min(MiB, left)))
      await rename(this.#staged, this.#path)
    } catch (cause) {
      await rm(this.#staged, { force: true })
      // What was set aside before is still there; nobody else must go without for it.
      if (!['ENOSPC', 'EDQUOT', 'EEXIST', 'ENOENT'].includes(codeOf(cause) ?? '')) throw asFileFault(cause, this.#path)
    }
  }

  /** Gives the room to whoever needs it now. @returns whether there was any */
  async free(): Promise<boolean> {
    const there = await stat(this.#path).catch(() => undefined)
    await rm(this.#path, { force: true })
    return there !== undefined
  }
}
