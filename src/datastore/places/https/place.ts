/** A datastore behind another Hakobune (`place-server.ts`). What we may do there is what our token may. */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { rm, stat } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { Fault, isFault } from '#base/fault.ts'
import { asFileFault } from '#host/files.ts'
import { again } from '../again.ts'
import type { DatastoreDeps } from '../../deps.ts'
import { type Asked, HttpsClient, type HttpsOptions } from './client.ts'
import { leaseHeader, leaseIdOf } from './lease-secret.ts'
import { KeptSegments } from '../kept-segments.ts'
import {
  type CanaryAttempt,
  checkName,
  isName,
  type Place,
  type PlacedObject,
  type ReadPlan,
  type Room,
} from '../place.ts'
import { ReadAhead, remoteNearBytes } from '../read-ahead.ts'
import { ServerClock } from '../server-clock.ts'
import { type Right, rights } from './tokens.ts'
import { Staging } from '../staging.ts'

const aboutBytes = 16 * 1024

export interface HttpsPlaceOptions extends HttpsOptions {
  readonly attempts?: number | undefined
  readonly firstWaitMs?: number | undefined
  /** Folder for what is on its way, of ours alone; one of the machine's for such things when absent. */
  readonly stagingHome?: string | undefined
  /** Folder in which parts of the index stay for the next process; they go with this one when absent. */
  readonly keptHome?: string | undefined
}

export class HttpsPlace implements Place {
  readonly label: string
  readonly #client: HttpsClient
  readonly #time: ServerClock
  readonly #deps: DatastoreDeps
  readonly #options: HttpsPlaceOptions
  readonly #staging: Staging
  readonly #segments: KeptSegments
  readonly #packs: ReadAhead
  readonly nearBytes = remoteNearBytes
  #rights: ReadonlySet<Right> = new Set()
  #room = { totalBytes: 0, availableBytes: 0 }
  /** Of our leases, by their names. */
  readonly #secrets = new Map<string, string>()

  private constructor(
    options: HttpsPlaceOptions,
    deps: DatastoreDeps,
    found: { client: HttpsClient; time: ServerClock; staging: Staging },
  ) {
    this.label = options.url
    this.#options = options
    this.#deps = deps
    this.#client = found.client
    this.#time = found.time
    this.#staging = found.staging
    const elsewhere = {
      sizeOf: (name: string) => this.#sizeOf(name),
      read: (name: string, offset: number, length: number) => this.#read(name, offset, length),
    }
    const kept = { staging: found.staging.path, home: options.keptHome, random: deps.random }
    this.#segments = new KeptSegments({ ...kept, elsewhere })
    this.#packs = new ReadAhead(elsewhere)
  }

  /** @throws Fault `denied`, `unavailable`, `missing` */
  static async open(options: HttpsPlaceOptions, deps: DatastoreDeps): Promise<HttpsPlace> {
    const time = new ServerClock(deps.clock)
    const client = new HttpsClient(options, time)
    const staging = await Staging.open(deps.random, options.stagingHome)
    try {
      const place = new HttpsPlace(options, deps, { client, time, staging })
      await place.#learn()
      return place
    } catch (fault) {
      await staging[Symbol.asyncDispose]()
      client[Symbol.dispose]()
      throw fault
    }
  }

  async #learn(): Promise<void> {
    const text = await this.#ask({ method: 'GET', path: '' }, aboutBytes)
    const about = Object(parsed(text)) as {
      readonly rights?: unknown
      readonly time?: unknown
      readonly room?: unknown
    }
    const given: readonly unknown[] = Array.isArray(about.rights) ? about.rights : []
    this.#rights = new Set(rights.filter((right) => given.includes(right)))
    const { totalBytes, availableBytes } = Object(about.room) as { totalBytes?: unknown; availableBytes?: unknown }
    this.#room = { totalBytes: bytesOf(totalBytes), availableBytes: bytesOf(availableBytes) }
    // After the date of the answer, which may be that of a proxy in between.
    this.#time.hear(Number(about.time) * 1000)
  }

  get stagingDir(): string {
    return this.#staging.path
  }

  /** When it was opened; zeros when the server does not say. */
  async room(): Promise<Room> {
    const { totalBytes, availableBytes } = this.#room
    return { totalBytes, availableBytes, usedBytes: Math.max(0, totalBytes - availableBytes) }
  }

  /** Prune and garbage are the server's. */
  get addsOnly(): boolean {
    return !this.#rights.has('delete')
  }

  leaseId(): string {
    const secret = Buffer.from(this.#deps.random.bytes(32)).toString('hex')
    const id = leaseIdOf(secret)
    this.#secrets.set(`leases/${id}`, secret)
    return id
  }

  #proof(name: string): Readonly<Record<string, string>> {
    const secret = this.#secrets.get(name)
    return secret === undefined ? {} : { [leaseHeader]: secret }
  }

  /** The server makes what is to be made. */
  async prepare(): Promise<void> {}

  #patiently<T>(act: (attempt: number) => Promise<T>): Promise<T> {
    const { attempts, firstWaitMs } = this.#options
    return again({ ...this.#deps, attempts, firstWaitMs }, act)
  }

  #ask(asked: Asked, maximumBytes: number): Promise<Buffer> {
    return this.#patiently(async () => this.#client.gather(await this.#client.ask(asked), maximumBytes))
  }

  async putFile(name: string, path: string): Promise<boolean> {
    // Before megabytes are sent for nothing.
    const isNew = !(await this.#isThere(name)) && (await this.#upload(name, path, true))
    if (KeptSegments.isOne(name)) await this.#segments.adopt(name, path)
    else await rm(path, { force: true })
    return isNew
  }

  async replaceFile(name: string, path: string): Promise<void> {
    await this.#upload(name, path, false)
    this.#packs.forget(name)
    await rm(path, { force: true })
  }

  async #upload(name: string, path: string, onlyNew: boolean): Promise<boolean> {
    const { size } = await stat(path).catch((cause: unknown) => {
      throw asFileFault(cause, path)
    })
    return this.#send(name, { body: () => createReadStream(path), size, digest: name.slice(-64), onlyNew })
  }

  put(name: string, content: Uint8Array): Promise<boolean> {
    return this.#send(name, { body: content, size: content.length, digest: hashOf(content), onlyNew: true })
  }

  async replace(name: string, content: Uint8Array): Promise<void> {
    await this.#send(name, { body: content, size: content.length, digest: hashOf(content), onlyNew: false })
  }

  async #send(
    name: string,
    what: { readonly body: NonNullable<Asked['body']>; size: number; digest: string; onlyNew: boolean },
  ): Promise<boolean> {
    await this.#requireClock()
    if (!this.#rights.has('write') && !name.startsWith('leases/'))
      throw new Fault('denied', `the token for '${this.label}' has no right to write`)
    const headers = {
      'Content-Length': what.size,
      'X-Digest': what.digest,
      ...this.#proof(name),
      ...(what.onlyNew && { 'If-None-Match': '*' }),
    }
    return this.#patiently(async (attempt) => {
      const response = await this.#client.ask({ method: 'PUT', path: pathOf(name), headers, body: what.body })
      const isTaken = response.statusCode === 412
      await this.#client.gather(response, aboutBytes)
      if (!isTaken) return true
      // An attempt whose answer was lost may have come before us.
      return attempt > 1 && (await this.#isOurs(name, what))
    })
  }

  async #isOurs(name: string, { size, digest }: { readonly size: number; readonly digest: string }): Promise<boolean> {
    if (name.endsWith(digest)) return true
    const found = await this.get(name, size).catch((fault: unknown) => {
      if (isFault(fault, 'too-large')) return undefined
      throw fault
    })
    return found !== undefined && hashOf(found) === digest
  }

  #requireClock(): Promise<void> {
    return this.#time.requireNear(this.#client.server, () => this.#learn())
  }

  async get(name: string, maximumBytes: number): Promise<Buffer | undefined> {
    try {
      return await this.#ask({ method: 'GET', path: pathOf(name) }, maximumBytes)
    } catch (fault) {
      if (isFault(fault, 'missing')) return undefined
      throw fault
    }
  }

  read(name: string, offset: number, length: number, room?: Buffer): Promise<Buffer> {
    if (KeptSegments.isOne(name)) return this.#segments.read(name, offset, length)
    return ReadAhead.isOne(name) ? this.#packs.read(name, offset, length, room) : this.#read(name, offset, length)
  }

  plan(): ReadPlan {
    return this.#packs.plan()
  }

  async #read(name: string, offset: number, length: number): Promise<Buffer> {
    if (length === 0) return Buffer.alloc(0)
    const headers = { Range: `bytes=${offset}-${offset + length - 1}` }
    const bytes = await this.#ask({ method: 'GET', path: pathOf(name), headers }, length)
    if (bytes.length === length) return bytes
    throw new Fault('damaged', `'${name}' ends ${length - bytes.length} bytes early`)
  }

  sizeOf(name: string): Promise<number> {
    return KeptSegments.isOne(name) ? this.#segments.sizeOf(name) : this.#sizeOf(name)
  }

  requireWhole(name: string): Promise<void> {
    return this.#segments.requireWhole(name)
  }

  #sizeOf(name: string): Promise<number> {
    return this.#patiently(async () => {
      const response = await this.#client.ask({ method: 'HEAD', path: pathOf(name) })
      response.resume()
      return Number(response.headers['x-size'] ?? 0)
    })
  }

  async #isThere(name: string): Promise<boolean> {
    try {
      await this.#sizeOf(name)
      return true
    } catch (fault) {
      if (isFault(fault, 'missing')) return false
      throw fault
    }
  }

  /** Begins anew where it was cut off, and leaves out what it has said. */
  async *list(folder: string): AsyncGenerator<PlacedObject> {
    const path = `/names/${encodeURI(folder.replace(/\/$/, ''))}`
    const said = new Set<string>()
    const { attempts = 5 } = this.#options
    for (let attempt = 1; ; attempt += 1) {
      const response = await this.#patiently(() => this.#client.ask({ method: 'GET', path }))
      try {
        for await (const line of createInterface({ input: response, crlfDelay: Infinity })) {
          const entry = Object(JSON.parse(line)) as Line
          if (entry.end === true) return
          if (typeof entry.name !== 'string' || !isName(entry.name) || said.has(entry.name)) continue
          said.add(entry.name)
          const { name, version } = entry
          yield { name, sizeBytes: Number(entry.sizeBytes), ...(typeof version === 'string' && { version }) }
        }
      } catch (cause) {
        if (cause instanceof Fault) throw cause
        // Cut off, or no JSON at its end.
      } finally {
        response.destroy()
      }
      if (attempt >= attempts)
        throw new Fault('unavailable', `'${this.#client.server}' cut a list off ${attempts} times`)
    }
  }

  async remove(name: string): Promise<boolean> {
    // Whoever clears away one of the dead has judged it by the clock.
    if (name.startsWith('leases/')) await this.#requireClock()
    this.#segments.forget(name)
    this.#packs.forget(name)
    try {
      await this.#ask({ method: 'DELETE', path: pathOf(name), headers: this.#proof(name) }, aboutBytes)
      this.#secrets.delete(name)
      return true
    } catch (fault) {
      if (isFault(fault, 'missing')) return false
      throw fault
    }
  }

  /** Tries to replace and to remove what we put. */
  async canary(): Promise<CanaryAttempt[]> {
    const name = `canary/${this.#deps.random.uuid()}`
    const content = Buffer.from(this.#deps.random.bytes(64))
    await this.put(name, content)
    const isRefused = (act: () => Promise<unknown>) =>
      act().then(
        () => false,
        (fault: unknown) => {
          if (isFault(fault, 'denied')) return true
          throw fault
        },
      )
    const overwrite = await isRefused(() => this.replace(name, Buffer.alloc(64)))
    const remove = await isRefused(() => this.remove(name))
    const found = await this.get(name, 64)
    return [
      { attempt: 'overwrite', refused: overwrite && found !== undefined && found.equals(content) },
      { attempt: 'delete', refused: remove && found !== undefined },
    ]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#segments[Symbol.asyncDispose]()
    await this.#staging[Symbol.asyncDispose]()
    this.#client[Symbol.dispose]()
  }
}

/** Of a list. */
interface Line {
  readonly name?: unknown
  readonly sizeBytes?: unknown
  readonly version?: unknown
  readonly end?: unknown
}

function parsed(text: Buffer): unknown {
  try {
    return JSON.parse(text.toString('utf8'))
  } catch (cause) {
    throw new Fault('unavailable', 'what answers there is no server of datastores', { cause })
  }
}

function bytesOf(value: unknown): number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0 ? value : 0
}

function pathOf(name: string): string {
  return `/objects/${encodeURI(checkName(name))}`
}

function hashOf(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex')
}
