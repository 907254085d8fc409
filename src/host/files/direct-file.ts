/**
 * Files past the page cache. To copy something large there that is not needed again soon costs as much as to decrypt it, more
 * where the kernel has to find memory for it first, and pushes out what guests need.
 *
 * Direct access begins and ends at multiples of `blockBytes` and wants aligned memory. A file system may want yet another
 * shape, and says so by EINVAL; then, and where a part is cut otherwise, it is done the ordinary way.
 */
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { KiB } from '#base/bytes.ts'
import { codeOf } from '../files.ts'

/** No disk has larger sectors. */
export const blockBytes = 4 * KiB

/** @returns nothing where the file system has only the page cache; it may have made the file all the same */
export async function openDirect(path: string, flags: number, mode?: number): Promise<FileHandle | undefined> {
  try {
    return await open(path, flags | constants.O_DIRECT, mode)
  } catch (error) {
    if (codeOf(error) === 'EINVAL') return undefined
    throw error
  }
}

/** From whole pages of memory, which is what V8 gives to buffers that may be resized. */
export function alignedBuffer(bytes: number): Buffer {
  return Buffer.from(new ArrayBuffer(bytes, { maxByteLength: bytes }), 0, bytes)
}

/** A file that is there, read or written at any place, past the page cache where that can be. */
export class DirectFile implements AsyncDisposable {
  /** The ordinary way to it. */
  readonly handle: FileHandle
  readonly #direct: FileHandle | undefined
  #isPlain = false

  private constructor(handle: FileHandle, direct: FileHandle | undefined) {
    this.handle = handle
    this.#direct = direct
  }

  /** @throws Error of the file system */
  static async open(path: string, access: 'read' | 'write'): Promise<DirectFile> {
    const flags = access === 'read' ? constants.O_RDONLY : constants.O_RDWR
    await using undo = new AsyncDisposableStack()
    const handle = undo.use(await open(path, flags))
    const file = new DirectFile(handle, await openDirect(path, flags))
    undo.move()
    return file
  }

  /** Fills all of `into`. @throws Error of the file system, or when the file ends before */
  async read(offset: number, into: Uint8Array): Promise<void> {
    for (let done = 0; done < into.length;) {
      const part = into.subarray(done)
      const count = await this.#attempt(offset + done, part, async (handle) => {
        return (await handle.read(part, 0, part.length, offset + done)).bytesRead
      })
      if (count === 0) throw new Error(`the file ends ${part.length} bytes early`)
      done += count
    }
  }

  /** @throws Error of the file system */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const part = bytes.subarray(done)
      done += await this.#attempt(offset + done, part, async (handle) => {
        return (await handle.write(part, 0, part.length, offset + done)).bytesWritten
      })
    }
  }

  async #attempt(offset: number, part: Uint8Array, act: (handle: FileHandle) => Promise<number>): Promise<number> {
    const isWhole = offset % blockBytes === 0 && part.length % blockBytes === 0
    if (!this.#direct || this.#isPlain || !isWhole) return act(this.handle)
    try {
      return await act(this.#direct)
    } catch (error) {
      if (codeOf(error) !== 'EINVAL') throw error
      this.#isPlain = true
      return act(this.handle)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#direct?.close()
    await this.handle.close()
  }
}
