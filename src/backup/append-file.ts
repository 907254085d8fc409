/**
 * A file that is written once from front to end, hashed on the way, and synced before anybody may know
 * of it. Packs and indexes are both of this kind.
 */
import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { MiB } from '#base/bytes.ts'
import type { Digest } from '#base/ids.ts'
import { asDigest } from '#base/ids.ts'
import { asFileFault } from '#host/files.ts'

const bufferedBytes = 1 * MiB

export class AppendFile {
  readonly path: string
  readonly #handle: FileHandle
  readonly #hash = createHash('sha256')
  #waiting: Uint8Array[] = []
  #waitingBytes = 0
  #sizeBytes = 0

  private constructor(path: string, handle: FileHandle) {
    this.path = path
    this.#handle = handle
  }

  /** @throws Fault when the file exists or cannot be made */
  static async create(path: string): Promise<AppendFile> {
    try {
      return new AppendFile(path, await open(path, 'wx', 0o600))
    } catch (cause) {
      throw asFileFault(cause, path)
    }
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  /** Takes the bytes over (the caller must not change them) and returns the offset they will have. */
  async append(bytes: Uint8Array): Promise<number> {
    const offset = this.#sizeBytes
    this.#hash.update(bytes)
    this.#waiting.push(bytes)
    this.#waitingBytes += bytes.length
    this.#sizeBytes += bytes.length
    if (this.#waitingBytes >= bufferedBytes) await this.#flush()
    return offset
  }

  /** Writes the rest and makes it survive power loss. Returns the SHA-256 of the whole file. */
  async finish(): Promise<Digest> {
    try {
      await this.#flush()
      await this.#handle.datasync()
    } catch (cause) {
      throw asFileFault(cause, this.path)
    } finally {
      await this.#handle.close()
    }
    return asDigest(this.#hash.digest('hex'))
  }

  /** Closes without a promise about the content; removing the file is the caller's. May be called twice. */
  async discard(): Promise<void> {
    this.#waiting = []
    await this.#handle.close()
  }

  async #flush(): Promise<void> {
    const bytes = Buffer.concat(this.#waiting)
    this.#waiting = []
    this.#waitingBytes = 0
    try {
      await this.#handle.writeFile(bytes)
    } catch (cause) {
      throw asFileFault(cause, this.path)
    }
  }
}
