/** Files of a folder that are read in many places, kept open for a while. */
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { KiB } from '#base/bytes.ts'
import { codeOf } from '#host/files.ts'
import { blockBytes, openDirect } from '#host/files/direct-file.ts'

const openFiles = 16
/** What is smaller is as cheap from the page cache. */
const leastDirectBytes = 128 * KiB

export class OpenFiles {
  readonly #files = new Map<string, OpenFile>()

  during<T>(path: string, work: (file: FileHandle) => Promise<T>): Promise<T> {
    return this.#using(path, async (file) => work(await file.handle))
  }

  /**
   * Past the page cache, which guests have more use for: all blocks that what is wanted lies in.
   * @param room pages of memory
   * @returns nothing where it cannot be had that way; the ordinary way says what is wrong, if something is
   */
  async readDirect(path: string, offset: number, length: number, room: Buffer): Promise<Buffer | undefined> {
    const before = offset % blockBytes
    const blocksBytes = Math.ceil((before + length) / blockBytes) * blockBytes
    if (length < leastDirectBytes || room.length < blocksBytes) return undefined
    return this.#using(path, async (file) => {
      await file.handle
      if (file.isPlain) return undefined
      try {
        file.direct ??= openDirect(path, constants.O_RDONLY)
        // The last block of the file is shorter.
        const read = await (await file.direct)?.read(room, 0, blocksBytes, offset - before)
        return read && read.bytesRead >= before + length ? room.subarray(before, before + length) : undefined
      } catch (error) {
        // The file system wants another shape: that would be found anew for each read.
        if (codeOf(error) === 'EINVAL') file.isPlain = true
        return undefined
      }
    })
  }

  async #using<T>(path: string, work: (file: OpenFile) => Promise<T>): Promise<T> {
    const file = this.#files.get(path) ?? this.#open(path)
    file.users += 1
    try {
      return await work(file)
    } finally {
      file.users -= 1
      await closeUnused(file)
    }
  }

  #open(path: string): OpenFile {
    const handle = open(path, 'r').catch((cause: unknown) => {
      // Another one may have come in its place, and is somebody's.
      if (this.#files.get(path) === file) this.#files.delete(path)
      throw cause
    })
    const file: OpenFile = { handle, isPlain: false, users: 0, isForgotten: false }
    this.#files.set(path, file)
    const [oldest] = this.#files.keys()
    if (this.#files.size > openFiles && oldest !== undefined) this.forget(oldest)
    return file
  }

  forget(path: string): void {
    const file = this.#files.get(path)
    if (!file) return
    this.#files.delete(path)
    file.isForgotten = true
    closeUnused(file).catch(() => {})
  }

  /** Somebody else has put a whole one in the place of one that was damaged. @param ino of the file that is there now */
  async forgetOther(path: string, ino: number): Promise<void> {
    const file = this.#files.get(path)
    if (!file) return
    const open = await this.during(path, (handle) => handle.stat()).catch(() => undefined)
    if (open?.ino !== ino && this.#files.get(path) === file) this.forget(path)
  }

  async closeAll(): Promise<void> {
    const files = [...this.#files.values()]
    this.#files.clear()
    for (const file of files) {
      file.isForgotten = true
      await closeUnused(file).catch(() => {})
    }
  }
}

interface OpenFile {
  readonly handle: Promise<FileHandle>
  direct?: Promise<FileHandle | undefined>
  /** It is not read past the page cache. */
  isPlain: boolean
  users: number
  isForgotten: boolean
}

async function closeUnused(file: OpenFile): Promise<void> {
  if (!file.isForgotten || file.users > 0) return
  await (await file.direct?.catch(() => undefined))?.close()
  await (await file.handle).close()
}
