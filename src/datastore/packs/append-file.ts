/**
 * A file that is written once from front to end, hashed on the way, and synced before anybody may know
 * of it. Packs and indexes are both of this kind.
 */
import { createHash } from 'node:crypto'
import type { Digest } from '#base/ids.ts'
import { asDigest } from '#base/ids.ts'
import { asFileFault } from '#host/files.ts'
import { type GatheredFile, openGathered } from '#host/files/gathered-file.ts'

export class AppendFile {
  readonly path: string
  readonly #file: GatheredFile
  readonly #hash = createHash('sha256')
  #sizeBytes = 0

  private constructor(path: string, file: GatheredFile) {
    this.path = path
    this.#file = file
  }

  /** @throws Fault when the file exists or cannot be made */
  static async create(path: string): Promise<AppendFile> {
    try {
      return new AppendFile(path, await openGathered(path))
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
        this.#hash.update(bytes)
        this.#sizeBytes += bytes.length
        await this.#file.write(bytes)
      }
    } catch (cause) {
      throw asFileFault(cause, this.path)
    }
    return offset
  }

  /** Writes the rest and makes it survive power loss. Returns the SHA-256 of the whole file. */
  async finish(): Promise<Digest> {
    try {
      await this.#file.flush()
      await this.#file.sync()
    } catch (cause) {
      throw asFileFault(cause, this.path)
    } finally {
      await this.#file[Symbol.asyncDispose]()
    }
    return asDigest(this.#hash.digest('hex'))
  }

  /** Closes without a promise about the content; removing the file is the caller's. May be called twice. */
  async discard(): Promise<void> {
    await this.#file[Symbol.asyncDispose]()
  }
}
