/**
 * What somebody sends that is too large for memory, until all of it is there: in a file without a name. So it goes with whoever
 * has it open, and nobody who clears away what writers have left takes it for that.
 */
import { type FileHandle, open, rm } from 'node:fs/promises'
import { asFileFault } from '#host/files.ts'

export class Spool implements AsyncDisposable {
  readonly #file: FileHandle
  readonly #path: string
  #bytes = 0

  private constructor(file: FileHandle, path: string) {
    this.#file = file
    this.#path = path
  }

  /** @param path where nothing is, and nothing stays */
  static async create(path: string): Promise<Spool> {
    try {
      const file = await open(path, 'wx+', 0o600)
      await rm(path, { force: true })
      return new Spool(file, path)
    } catch (cause) {
      throw asFileFault(cause, path)
    }
  }

  /** @throws Fault `exhausted` */
  async add(part: Buffer): Promise<void> {
    try {
      await this.#file.writeFile(part)
      this.#bytes += part.length
    } catch (cause) {
      throw asFileFault(cause, this.#path)
    }
  }

  /** All of it, in memory. */
  async content(): Promise<Buffer> {
    const content = Buffer.allocUnsafe(this.#bytes)
    for (let done = 0; done < content.length;) {
      const { bytesRead } = await this.#file.read(content, done, content.length - done, done)
      if (bytesRead === 0) throw new Error('a file without a name was cut off')
      done += bytesRead
    }
    return content
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
  }
}
