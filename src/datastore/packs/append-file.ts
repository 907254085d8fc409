/**
 * A file that is written once from front to end, hashed on the way, and synced before anybody may know
 * of it. Packs and indexes are both of this kind.
 */
import { rm } from 'node:fs/promises'
import type { Digest } from '#base/ids.ts'
import { asDigest } from '#base/ids.ts'
import { asFileFault } from '#host/files.ts'
import { type GatheredFile, openGathered } from '#host/files/gathered-file.ts'
import { NameDigest } from '../digests.ts'

export class AppendFile implements AsyncDisposable {
  readonly path: string
  readonly #file: GatheredFile
  readonly #hash: NameDigest
  #sizeBytes = 0

  private constructor(path: string, file: GatheredFile, hash: NameDigest) {
    this.path = path
    this.#file = file
    this.#hash = hash
  }

  /** @throws Fault when the file exists or cannot be made */
  static async create(path: string): Promise<AppendFile> {
    try {
      const hash = new NameDigest()
      // By the piece: what is hashed in odd sizes costs BLAKE3 twice as much.
      return new AppendFile(path, await openGathered(path, (piece) => hash.update(piece)), hash)
    } catch (cause) {
      throw asFileFault(cause, path)
    }
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  /** One call after another; what was appended may be changed afterwards. @returns the offset the first has */
  async append(...pieces: readonly Uint8Array[]): Promise<number> {
    const offset = this.#sizeBytes
    try {
      for (const bytes of pieces) {
        this.#sizeBytes += bytes.length
        await this.#file.write(bytes)
      }
    } catch (cause) {
      throw asFileFault(cause, this.path)
    }
    return offset
  }

  /** Writes the rest and makes it survive power loss. Returns the digest of the whole file, by which it is called. */
  async finish(): Promise<Digest> {
    try {
      await this.#file.flush()
      await this.#file.sync()
    } catch (cause) {
      throw asFileFault(cause, this.path)
    } finally {
      await this.#file[Symbol.asyncDispose]()
    }
    return asDigest(this.#hash.hex())
  }

  /** Closes it, and removes it unless it was moved to its place. Where one is forgotten while it is open, Node ends the process. */
  async [Symbol.asyncDispose](): Promise<void> {
    // What closing says of the content matters to nobody any more.
    await Promise.resolve(this.#file[Symbol.asyncDispose]()).catch(() => {})
    await rm(this.path, { force: true })
  }
}
