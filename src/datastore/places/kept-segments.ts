/**
 * Copies of segments in a local folder: each look-up of a chunk reads a few bytes of one, and none can be worth a way over
 * the network. Which segments there are is the place's alone to say; their names prove what is in them, each time one is
 * opened.
 *
 * Without a home for them they go with the process. With one they stay, for all processes and all datastores: each is there
 * whole, under its name, or not at all. Two who fetch one at the same moment put the same thing there. Whoever adds one
 * removes those that were not used for longest, when there are too many; who has one open keeps it all the same.
 */
import { createHash } from 'node:crypto'
import { copyFile, type FileHandle, lstat, mkdir, open, readdir, rename, rm, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { userInfo } from 'node:os'
import { GiB, MiB } from '#base/bytes.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { systemClock } from '#base/clock.ts'
import { asFileFault } from '#host/files.ts'

const step = 8 * MiB
const homeMaximumBytes = 2 * GiB
/** Of whoever died while fetching. */
const partEnding = '.part'
const partMaximumMs = 24 * 60 * 60_000
/** Nothing else in the folder is touched. */
const nameShape = /^[0-9a-f]{64}(?:\.[0-9a-f-]{36}\.part)?$/

export interface SegmentsElsewhere {
  /** @throws Fault `missing` */
  readonly sizeOf: (name: string) => Promise<number>
  readonly read: (name: string, offset: number, length: number) => Promise<Buffer>
}

export interface KeptSegmentsOptions {
  /** A folder that goes with the process. */
  readonly staging: string
  /** A folder in which they stay: made when it is not there, and not used when others may write there. */
  readonly home?: string | undefined
  /** Of what is in `home`. */
  readonly maximumBytes?: number | undefined
  readonly elsewhere: SegmentsElsewhere
  readonly random: Random
}

interface Kept {
  readonly file: FileHandle
  readonly sizeBytes: number
  /** By somebody before us: what lies in the place now was not seen. */
  readonly isOld: boolean
}

export class KeptSegments implements AsyncDisposable {
  readonly #options: KeptSegmentsOptions
  readonly #files = new Map<string, Promise<Kept>>()
  #folder: Promise<string> | undefined

  constructor(options: KeptSegmentsOptions) {
    this.#options = options
  }

  static isOne(name: string): boolean {
    return name.startsWith('segments/')
  }

  /** @throws Fault `missing`, `damaged` */
  async read(name: string, offset: number, length: number): Promise<Buffer> {
    const { file, sizeBytes } = await this.#kept(name)
    if (offset + length > sizeBytes)
      throw new Fault('damaged', `'${name}' ends ${offset + length - sizeBytes} bytes early`)
    const bytes = Buffer.allocUnsafe(length)
    for (let done = 0; done < length;) {
      const { bytesRead } = await file.read(bytes, done, length - done, offset + done)
      if (bytesRead === 0) throw new Fault('damaged', `the local copy of '${name}' was cut off`)
      done += bytesRead
    }
    return bytes
  }

  async sizeOf(name: string): Promise<number> {
    return (await this.#kept(name)).sizeBytes
  }

  /** Looks at what lies in the place, where only an older copy was looked at. @throws Fault `missing`, `damaged` */
  async requireWhole(name: string): Promise<void> {
    if (!(await this.#kept(name)).isOld) return
    await this.#fetch(name, async () => {})
  }

  /** Keeps what was put under the name. @param path of it, moved away */
  async adopt(name: string, path: string): Promise<void> {
    const home = await this.#home()
    const part = this.#partIn(home, name)
    try {
      // It may be on another disk.
      await rename(path, part).catch(() => copyFile(path, part))
      await rename(part, join(home, idOf(name)))
      await this.#tidy(home, name)
    } catch {
      // Then it is fetched when it is asked for.
      await rm(part, { force: true })
    }
    await rm(path, { force: true })
  }

  forget(name: string): void {
    const kept = this.#files.get(name)
    this.#files.delete(name)
    kept?.then(({ file }) => file.close()).catch(() => {})
  }

  #kept(name: string): Promise<Kept> {
    const known = this.#files.get(name)
    if (known) return known
    const opening = this.#open(name)
    this.#files.set(name, opening)
    opening.catch(() => this.#files.delete(name))
    return opening
  }

  async #open(name: string): Promise<Kept> {
    const home = await this.#home()
    const found = await openProven(join(home, idOf(name)), idOf(name))
    if (found) return { ...found, isOld: true }
    try {
      return await this.#fetchInto(home, name)
    } catch (cause) {
      // Full, or not ours to write to: the home only saves work.
      if (isFault(cause) || home === this.#options.staging) throw asFileFault(cause, home)
      return await this.#fetchInto(this.#options.staging, name).catch((again: unknown) => {
        throw asFileFault(again, this.#options.staging)
      })
    }
  }

  async #fetchInto(folder: string, name: string): Promise<Kept> {
    const part = this.#partIn(folder, name)
    const file = await open(part, 'wx+', 0o600)
    try {
      const sizeBytes = await this.#fetch(name, (bytes) => file.writeFile(bytes))
      await rename(part, join(folder, idOf(name)))
      await this.#tidy(folder, name)
      return { file, sizeBytes, isOld: false }
    } catch (cause) {
      await file.close()
      await rm(part, { force: true })
      throw cause
    }
  }

  #partIn(folder: string, name: string): string {
    return join(folder, `${idOf(name)}.${this.#options.random.uuid()}${partEnding}`)
  }

  /** @returns its size */
  async #fetch(name: string, take: (bytes: Buffer) => Promise<void>): Promise<number> {
    const { elsewhere } = this.#options
    const sizeBytes = await elsewhere.sizeOf(name)
    const hash = createHash('sha256')
    for (let at = 0; at < sizeBytes; at += step) {
      const bytes = await elsewhere.read(name, at, Math.min(step, sizeBytes - at))
      hash.update(bytes)
      await take(bytes)
    }
    if (hash.digest('hex') !== idOf(name)) throw new Fault('damaged', `${name} is not what its name says`)
    return sizeBytes
  }

  #home(): Promise<string> {
    const { home, staging } = this.#options
    this.#folder ??= home === undefined ? Promise.resolve(staging) : usable(home).then((is) => (is ? home : staging))
    return this.#folder
  }

  /** What was not used for longest goes, and what was never whole; where all there is is ours, what was added last. */
  async #tidy(folder: string, added: string): Promise<void> {
    const { home, maximumBytes = homeMaximumBytes } = this.#options
    if (folder !== home) return
    const own = new Set([...this.#files.keys(), added].map(idOf))
    const found: { readonly path: string; readonly id: string; readonly size: number; readonly mtimeMs: number }[] = []
    for (const id of await readdir(folder).catch(() => [])) {
      const path = join(folder, id)
      const facts = nameShape.test(id) ? await stat(path).catch(() => undefined) : undefined
      if (facts) found.push({ path, id, size: facts.size, mtimeMs: facts.mtimeMs })
    }
    let left = found.reduce((sum, { size }) => sum + size, 0)
    for (const { path, id, size, mtimeMs } of found.toSorted((a, b) => a.mtimeMs - b.mtimeMs)) {
      const isPart = id.endsWith(partEnding)
      const isTooMuch = left > maximumBytes && !isPart && !own.has(id)
      if (!isTooMuch && !(isPart && systemClock.now() - mtimeMs > partMaximumMs)) continue
      await rm(path, { force: true })
      left -= size
    }
    if (left > maximumBytes) await rm(join(folder, idOf(added)), { force: true })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of this.#files.keys()) {
      const kept = await this.#files.get(name)?.catch(() => undefined)
      this.#files.delete(name)
      await kept?.file.close()
    }
  }
}

function idOf(name: string): string {
  return name.slice(-64)
}

/** A folder of ours in which nobody else writes. */
async function usable(home: string): Promise<boolean> {
  try {
    await mkdir(home, { recursive: true, mode: 0o700 })
    const facts = await lstat(home)
    return facts.isDirectory() && facts.uid === userInfo().uid && (facts.mode & 0o022) === 0
  } catch {
    return false
  }
}

/** Nothing where none is, and where it is not what its name says. */
async function openProven(path: string, id: string): Promise<Omit<Kept, 'isOld'> | undefined> {
  const file = await open(path, 'r').catch(() => undefined)
  if (!file) return undefined
  try {
    const hash = createHash('sha256')
    const room = Buffer.allocUnsafe(MiB)
    let sizeBytes = 0
    for (let read = -1; read !== 0; sizeBytes += read) {
      read = (await file.read(room, 0, room.length, sizeBytes)).bytesRead
      hash.update(room.subarray(0, read))
    }
    if (hash.digest('hex') !== id) throw new Fault('damaged', `'${path}' is not what its name says`)
    // It was used now.
    const now = systemClock.now() / 1000
    await utimes(path, now, now).catch(() => {})
    return { file, sizeBytes }
  } catch {
    await file.close()
    return undefined
  }
}
