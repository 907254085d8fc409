/**
 * Datastores of a folder, for others to read and to add to over HTTP. What comes in is on disk under its name, whole and
 * proven, before it is answered.
 *
 *     GET    /v1/<datastore>                   what the token may do, what time it is here, and how much room there is
 *     GET    /v1/<datastore>/names/<folder>    lines of JSON, one for each object, and {"end":true}
 *     GET    /v1/<datastore>/objects/<name>    with Range, or whole; HEAD for the size
 *     PUT    /v1/<datastore>/objects/<name>    with If-None-Match: * only where nothing is; X-Digest is its hash
 *     DELETE /v1/<datastore>/objects/<name>
 *
 * X-Lease is the secret of the lease that is put or given back (`places/https/lease-secret.ts`).
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { open, rm, statfs } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { basename, join } from 'node:path'
import { KiB, MiB } from '#base/bytes.ts'
import { seconds } from '#base/clock.ts'
import { NameDigest } from '../digests.ts'
import { Fault, type FaultKind, isFault, missing } from '#base/fault.ts'
import { asFileFault } from '#host/files.ts'
import { type Datastore, openDatastore } from '../datastore.ts'
import type { DatastoreDeps } from '../deps.ts'
import { FolderPlace } from '../places/folder-place.ts'
import { isOwnLease, leaseHeader } from '../places/https/lease-secret.ts'
import { isName, isThere, type Place } from '../places/place.ts'
import { checkPut, checkRemove, requireRight, ruleOf, type Wish } from './rules.ts'
import { Spool } from './spool.ts'
import { type ServeToken, tokenOf } from '../places/https/tokens.ts'

const nameShape = /^[a-z0-9][a-z0-9_-]{0,31}$/
const pathShape = /^\/v1\/([^/]+)(?:\/(names|objects)\/(.+))?$/
/** A body that stands still for so long is given up. */
const idleMs = 60_000
const lingerMs = 2_000
const step = 1 * MiB
/** Taken into memory as it comes: nearly all there is but packs and segments. */
const smallBytes = 64 * KiB
const wholeMaximumBytes = 96 * MiB
const statusOf: Partial<Record<FaultKind, number>> = {
  invalid: 400,
  unauthenticated: 401,
  denied: 403,
  missing: 404,
  conflict: 409,
  'too-large': 413,
  damaged: 422,
  exhausted: 507,
}

export interface PlaceServerOptions {
  /** A datastore, or a folder of them. */
  readonly folder: string
  /** As they are now. */
  readonly tokens: () => Promise<readonly ServeToken[]>
}

interface Call {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly place: FolderPlace
  readonly token: ServeToken
  /** After the datastore's name. */
  readonly rest: string
}

/** What the head of a request says of its body. */
interface Announced {
  readonly wanted: string
  readonly length: number
}

export class PlaceServer implements AsyncDisposable {
  readonly #options: PlaceServerOptions
  readonly #deps: DatastoreDeps
  readonly #places = new Map<string, Promise<FolderPlace>>()
  #turn: Promise<unknown> = Promise.resolve()

  constructor(options: PlaceServerOptions, deps: DatastoreDeps) {
    this.#options = options
    this.#deps = deps
  }

  /** Answers, whatever comes. */
  readonly handle = (request: IncomingMessage, response: ServerResponse): void => {
    this.#answer(request, response).catch((fault: unknown) => this.#fail(request, response, fault))
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const token = tokenOf(request.headers.authorization, await this.#options.tokens())
    if (!token) throw new Fault('unauthenticated', 'the token is not known here')
    const [, name = '', kind, coded = ''] = pathShape.exec(request.url ?? '') ?? []
    const rest = decoded(coded)
    if (!nameShape.test(name) || (kind !== undefined && !isName(rest))) throw new Fault('missing', 'there is nothing')
    const place = await this.#placeOf(name, token)
    const call = { request, response, place, token, rest }
    const method = `${request.method} ${kind ?? ''}`.trim()
    if (method === 'GET') return this.#about(call)
    if (method === 'GET names') return this.#names(call)
    if (method === 'GET objects' || method === 'HEAD objects') return this.#read(call)
    if (method === 'PUT objects') return this.#put(call)
    if (method === 'DELETE objects') return this.#remove(call)
    throw new Fault('invalid', 'nothing is done that way')
  }

  async #placeOf(name: string, { rights }: ServeToken): Promise<FolderPlace> {
    const { folder } = this.#options
    const known = this.#places.get(name)
    if (known) return known
    const isOne = existsSync(join(folder, 'format'))
    const path = isOne ? folder : join(folder, name)
    if (isOne ? basename(folder) !== name : !existsSync(path) && !rights.includes('write'))
      throw missing('datastore', name)
    // Of many who come at once the first one opens it, for all.
    const opened = this.#opened(path)
    this.#places.set(name, opened)
    opened.catch(() => this.#places.delete(name))
    return await opened
  }

  async #opened(path: string): Promise<FolderPlace> {
    const place = new FolderPlace(path, this.#deps.random)
    await place.prepare()
    return place
  }

  async #about({ response, place, token }: Call): Promise<void> {
    const { blocks, bavail, bsize } = await statfs(place.label)
    const room = { totalBytes: blocks * bsize, availableBytes: bavail * bsize }
    const text = JSON.stringify({ rights: token.rights, time: seconds(this.#deps.clock), room })
    response.writeHead(200, { 'Content-Type': 'application/json' }).end(text)
  }

  async #names({ response, place, token, rest }: Call): Promise<void> {
    requireRight(new Set(token.rights), token.rights.includes('write') ? 'write' : 'read', rest)
    response.writeHead(200, { 'Content-Type': 'application/x-ndjson' })
    for await (const object of place.list(`${rest.replace(/\/$/, '')}/`)) {
      if (!response.write(`${JSON.stringify(object)}\n`)) await drained(response)
    }
    response.end('{"end":true}\n')
  }

  /** Whoever adds has to see what is there: the index, and how it is opened. Packs are for readers. */
  async #read({ request, response, place, token, rest }: Call): Promise<void> {
    const may = new Set(token.rights)
    const isInside = request.method === 'GET' && rest.startsWith('packs/')
    if (!may.has('write') || isInside) requireRight(may, 'read', rest)
    const size = await place.sizeOf(rest)
    const [from, to] = rangeOf(request.headers.range, size)
    const headers = { 'Content-Type': 'application/octet-stream', 'Content-Length': to - from, 'X-Size': size }
    response.writeHead(request.headers.range === undefined ? 200 : 206, headers)
    if (request.method === 'HEAD') {
      response.end()
      return
    }
    for (let at = from; at < to; at += step) {
      if (!response.write(await place.read(rest, at, Math.min(step, to - at)))) await drained(response)
    }
    response.end()
  }

  async #put(call: Call): Promise<void> {
    const { request, response, place, rest: name } = call
    request.setTimeout(idleMs, () => request.destroy())
    const rule = ruleOf(name)
    const isNew = request.headers['if-none-match'] === '*'
    const length = Number(request.headers['content-length'] ?? -1)
    if (!Number.isInteger(length) || length < 0) throw new Fault('invalid', 'it must say how long it is')
    if (length > rule.maximumBytes) throw new Fault('too-large', `'${name}' has ${length} bytes, too many`)
    const wish = { ...(await this.#wish(call)), place, name }
    if (isNew && (await isThere(place, name))) {
      response.writeHead(412, { Connection: 'close' }).end()
      return
    }
    const wanted = String(request.headers['x-digest'] ?? '')
    if (!/^[0-9a-f]{64}$/.test(wanted)) throw new Fault('invalid', 'it must say what its hash is')
    if (rule.isHashed === true && !name.endsWith(wanted)) throw new Fault('invalid', `'${name}' is another hash`)
    // Before any of it is taken in: what follows from its name and the token alone.
    await checkPut(wish, isNew)
    const isPlaced = rule.isHashed === true ? await this.#putFile(wish, request, isNew, wanted) : await this.#putContent(wish, request, isNew, { wanted, length }) // prettier-ignore
    response.writeHead(isPlaced ? 201 : 412).end()
  }

  async #wish({ request, place, token, rest }: Call): Promise<Omit<Wish, 'name'>> {
    const datastore = await this.#datastoreOf(place)
    const isOwn = isOwnLease(rest, request.headers[leaseHeader])
    return { place, datastore, may: new Set(token.rights), isOwnLease: isOwn }
  }

  async #datastoreOf(place: FolderPlace): Promise<Datastore | undefined> {
    return openDatastore(place, this.#deps).catch((fault: unknown) => {
      if (isFault(fault, 'missing')) return undefined
      throw fault
    })
  }

  async #putContent(
    wish: Wish,
    request: IncomingMessage,
    isNew: boolean,
    { wanted, length }: Announced,
  ): Promise<boolean> {
    const parts = request as AsyncIterable<Buffer>
    if (length <= smallBytes)
      return this.#placeContent(wish, isNew, wanted, Buffer.concat(await Array.fromAsync(parts)))
    await using spool = await Spool.create(this.#stagedPath(wish.place))
    for await (const part of parts) await spool.add(part)
    return await this.#alone(async () => this.#placeContent(wish, isNew, wanted, await spool.content()))
  }

  /** Of what is large one is in memory at a time, and only once it has come: nobody can make the others wait by sending slowly. */
  #alone<T>(act: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(act)
    this.#turn = turn.catch(() => {})
    return turn
  }

  async #placeContent(wish: Wish, isNew: boolean, wanted: string, content: Buffer): Promise<boolean> {
    const { place, name } = wish
    if (createHash('sha256').update(content).digest('hex') !== wanted) throw cutOff(name)
    await checkPut(wish, isNew, content)
    if (name.startsWith('canary/')) for await (const old of place.list('canary/')) await place.remove(old.name)
    if (isNew) return place.put(name, content)
    await place.replace(name, content)
    return true
  }

  async #putFile(wish: Wish, request: IncomingMessage, isNew: boolean, wanted: string): Promise<boolean> {
    const { place, name } = wish
    const path = this.#stagedPath(place)
    try {
      await using file = await open(path, 'wx', 0o600)
      const hash = new NameDigest()
      for await (const part of request as AsyncIterable<Buffer>) {
        hash.update(part)
        await file.writeFile(part)
      }
      if (hash.hex() !== wanted) throw cutOff(name)
      await file.datasync()
    } catch (cause) {
      await rm(path, { force: true })
      throw asFileFault(cause, path)
    }
    if (isNew) return place.putFile(name, path)
    await place.replaceFile(name, path)
    return true
  }

  #stagedPath({ stagingDir }: Place): string {
    return join(stagingDir, `upload-${this.#deps.random.uuid()}`)
  }

  async #remove(call: Call): Promise<void> {
    const { response, place, rest: name } = call
    checkRemove({ ...(await this.#wish(call)), name })
    response.writeHead((await place.remove(name)) ? 204 : 404).end()
  }

  #fail(request: IncomingMessage, response: ServerResponse, fault: unknown): void {
    const isOurs = fault instanceof Fault
    // Who was killed, or has had enough, is no failure of ours.
    const hasLeft = request.socket.destroyed
    if (!isOurs && !hasLeft) this.#deps.log.error('a request failed', { method: request.method, cause: fault })
    if (response.headersSent || response.destroyed) {
      // Cut off, so that nobody takes it for whole.
      response.destroy()
      return
    }
    const status = isOurs ? (statusOf[fault.kind] ?? 500) : 500
    const text = isOurs ? { kind: fault.kind, message: fault.message } : { kind: 'failed', message: 'it failed there' }
    // What else it sends nobody reads; it is taken in for a moment, so that it comes to read why.
    request.resume()
    request.setTimeout(lingerMs, () => request.destroy())
    response.writeHead(status, { 'Content-Type': 'application/json', Connection: 'close' }).end(JSON.stringify(text))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const opened of this.#places.values())
      await opened.then(
        (place) => place[Symbol.asyncDispose](),
        () => {},
      )
  }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return ''
  }
}

/** @returns from and to, in bytes */
function rangeOf(header: string | undefined, size: number): [number, number] {
  if (header === undefined) {
    if (size > wholeMaximumBytes) throw new Fault('too-large', 'it is read in parts')
    return [0, size]
  }
  const [, first, last] = /^bytes=(\d{1,15})-(\d{1,15})$/.exec(header) ?? []
  const [from, to] = [Number(first), Number(last) + 1]
  if (first === undefined || from >= to) throw new Fault('invalid', 'that is no range')
  if (to > size) throw new Fault('damaged', `it ends ${to - size} bytes early`)
  return [from, to]
}

function cutOff(name: string): Fault {
  return new Fault('damaged', `what arrived for '${name}' is not what was sent`)
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve, reject) => {
    const left = new Fault('aborted', 'the reader has left')
    // It says so once, and that may be over.
    if (response.destroyed) {
      reject(left)
      return
    }
    const done = (): void => {
      response.removeListener('drain', done)
      response.removeListener('close', gone)
      resolve()
    }
    const gone = (): void => {
      response.removeListener('drain', done)
      reject(left)
    }
    response.once('drain', done)
    response.once('close', gone)
  })
}
