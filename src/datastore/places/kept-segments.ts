/**
 * Copies of segments, kept in a local folder: each look-up of a chunk reads a few bytes of one, and none can be worth a
 * way over the network. Their names prove what arrived.
 */
import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import { asFileFault } from '#host/files.ts'

const step = 8 * MiB

export interface SegmentsElsewhere {
  /** @throws Fault `missing` */
  readonly sizeOf: (name: string) => Promise<number>
  readonly read: (name: string, offset: number, length: number) => Promise<Buffer>
}

export class KeptSegments implements AsyncDisposable {
  readonly #folder: string
  readonly #elsewhere: SegmentsElsewhere
  readonly #files = new Map<string, Promise<{ readonly file: FileHandle; readonly sizeBytes: number }>>()

  constructor(folder: string, elsewhere: SegmentsElsewhere) {
    this.#folder = folder
    this.#elsewhere = elsewhere
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

  forget(name: string): void {
    const kept = this.#files.get(name)
    this.#files.delete(name)
    kept?.then(({ file }) => file.close()).catch(() => {})
  }

  #kept(name: string) {
    const known = this.#files.get(name)
    if (known) return known
    const fetching = this.#fetch(name)
    this.#files.set(name, fetching)
    fetching.catch(() => this.#files.delete(name))
    return fetching
  }

  async #fetch(name: string) {
    const path = join(this.#folder, `kept-${name.slice(-64)}`)
    const file = await open(path, 'w+', 0o600).catch((cause: unknown) => {
      throw asFileFault(cause, path)
    })
    try {
      const sizeBytes = await this.#elsewhere.sizeOf(name)
      const hash = createHash('sha256')
      for (let at = 0; at < sizeBytes; at += step) {
        const bytes = await this.#elsewhere.read(name, at, Math.min(step, sizeBytes - at))
        hash.update(bytes)
        await file.writeFile(bytes)
      }
      if (hash.digest('hex') !== name.slice(-64)) throw new Fault('damaged', `${name} is not what its name says`)
      return { file, sizeBytes }
    } catch (cause) {
      await file.close()
      throw asFileFault(cause, path)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of this.#files.keys()) {
      const kept = await this.#files.get(name)?.catch(() => undefined)
      this.#files.delete(name)
      await kept?.file.close()
    }
  }
}
