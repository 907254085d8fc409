/**
 * A file that is written once from front to end, hashed on the way, and synced before anybody may know
 * of it. Packs and indexes are both of this kind.
 */
import { createHash } from 'node:crypto'
import { writevSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { KiB } from '#base/bytes.ts'
import type { Digest } from '#base/ids.ts'
import { asDigest } from '#base/ids.ts'
import { letGo } from '#base/let-go.ts'
import { asFileFault } from '#host/files.ts'

/**
 * Written while it is still in the processor's cache, and by the thread that made it: handing a piece this small to another
 * one takes longer than the kernel takes to copy it.
 */
const bufferedBytes = 256 * KiB

export class AppendFile {
  readonly path: string
  readonly #handle: FileHandle
  readonly #hash = createHash('sha256')
  #waiting: Uint8Array[] = []
  #waitingBytes = 0
  #sizeBytes = 0

  readonly #takesOver: boolean

  private constructor(path: string, handle: FileHandle, takesOver: boolean) {
    this.path = path
    this.#handle = handle
    this.#takesOver = takesOver
  }

  /**
   * @param options.takesOver what is appended is nobody's afterwards: its memory is given back when it is written
   * @throws Fault when the file exists or cannot be made
   */
  static async create(path: string, options: { readonly takesOver?: boolean } = {}): Promise<AppendFile> {
    try {
      return new AppendFile(path, await open(path, 'wx', 0o600), options.takesOver === true)
    } catch (cause) {
      throw asFileFault(cause, path)
    }
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  /** Takes the pieces over (the caller must not change them) and returns the offset the first will have. */
  async append(...pieces: readonly Uint8Array[]): Promise<number> {
    const offset = this.#sizeBytes
    for (const bytes of pieces) {
      this.#hash.update(bytes)
      this.#waiting.push(bytes)
      this.#waitingBytes += bytes.length
      this.#sizeBytes += bytes.length
    }
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
    const pieces = this.#waiting
    const bytes = this.#waitingBytes
    this.#waiting = []
    this.#waitingBytes = 0
    if (bytes === 0) return
    try {
      const written = writevSync(this.#handle.fd, pieces)
      // Cut short, by a signal or where the file system is nearly full.
      if (written < bytes) await this.#handle.writeFile(Buffer.concat(pieces).subarray(written))
      if (this.#takesOver) for (const piece of pieces) letGo(piece)
    } catch (cause) {
      throw asFileFault(cause, this.path)
    }
  }
}
