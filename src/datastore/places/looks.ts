/**
 * Looks at what lies in a folder: names, facts, a small file, a part of one.
 *
 * To give one to another thread takes a tenth of a millisecond of processor time, twenty times as much as the look. A process
 * of which nobody else wants anything therefore looks itself, and lets what else it does have its turn. Who serves others
 * must not: a file system that a server has may take long to answer, and all of them would wait.
 */
import {
  closeSync,
  constants,
  type Dirent,
  fstatSync,
  openSync,
  readdirSync,
  readSync,
  type Stats,
  statSync,
} from 'node:fs'
import { type FileHandle, opendir, readFile, stat } from 'node:fs/promises'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Fault } from '#base/fault.ts'

/** Failures are those of the system, by their codes. */
export interface Looks {
  readonly facts: (path: string) => Promise<Stats>
  readonly entries: (path: string) => Promise<readonly Dirent[]>
  /** @throws Fault `too-large` */
  readonly whole: (path: string, maximumBytes: number) => Promise<Buffer>
  /** @returns bytes read; 0 at the end of the file */
  readonly part: (file: FileHandle, into: Uint8Array, done: number, offset: number) => Promise<number>
}

export const looksElsewhere: Looks = {
  facts: stat,
  async entries(path) {
    const entries: Dirent[] = []
    for await (const entry of await opendir(path)) entries.push(entry)
    return entries
  },
  async whole(path, maximumBytes) {
    requireAtMost(maximumBytes, (await stat(path)).size, path)
    // In one act: a file that is opened, read and closed by itself takes three times as much.
    return readFile(path)
  },
  async part(file, into, done, offset) {
    const { bytesRead } = await file.read(into, done, into.length - done, offset)
    return bytesRead
  },
}

/** What else the process does waits no longer. */
const turnMs = 20

export class LooksHere implements Looks {
  #turnMs = performance.now()

  async facts(path: string): Promise<Stats> {
    await this.#turn()
    return statSync(path)
  }

  async entries(path: string): Promise<readonly Dirent[]> {
    await this.#turn()
    return readdirSync(path, { withFileTypes: true })
  }

  async whole(path: string, maximumBytes: number): Promise<Buffer> {
    await this.#turn()
    // A pipe somebody put there would never answer.
    const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      const { size } = fstatSync(file)
      requireAtMost(maximumBytes, size, path)
      const bytes = Buffer.allocUnsafe(size)
      let done = 0
      for (let more = -1; more !== 0 && done < size; done += more) more = readSync(file, bytes, done, size - done, done)
      return bytes.subarray(0, done)
    } finally {
      closeSync(file)
    }
  }

  async part({ fd }: FileHandle, into: Uint8Array, done: number, offset: number): Promise<number> {
    await this.#turn()
    return readSync(fd, into, done, into.length - done, offset)
  }

  /** Otherwise a thousand looks, one after another, would keep signals and timers waiting. */
  async #turn(): Promise<void> {
    if (performance.now() - this.#turnMs < turnMs) return
    await nextTurn()
    this.#turnMs = performance.now()
  }
}

function requireAtMost(maximumBytes: number, size: number, path: string): void {
  if (size > maximumBytes) throw new Fault('too-large', `'${path}' has ${size} bytes, too many`)
}
