/**
 * A client for Network Block Device servers on unix sockets: QEMU's, `qemu-nbd`, `qemu-storage-daemon`.
 *
 * Speaks fixed newstyle with `NBD_OPT_GO`, structured replies and `base:allocation` where the server has
 * them. Several reads are under way at once, at most `depth`; each reply is read straight into the buffer
 * of the read that asked for it (`nbd-replies.ts`).
 */
import { allDone } from '#base/all-done.ts'
import { Fault } from '#base/fault.ts'
import { MiB } from '#base/bytes.ts'
import { NbdReplies, type Pending } from './nbd-replies.ts'
import { ExactSocket } from './nbd-socket.ts'
import { extentsOf, type NbdExtent } from './nbd-status.ts'
import { type Negotiated, Negotiation } from './nbd-negotiation.ts'
import * as wire from './nbd-wire.ts'
import type { Listener } from '../programs/unix-peer.ts'

export interface NbdOptions {
  readonly exportName?: string
  /** Of QEMU's dirty bitmaps, exported with the disk: extents then tell what it calls unchanged. */
  readonly bitmap?: string | undefined
  /** Who must be found there. Absent: the socket is in a directory of root's own. */
  readonly listener?: Listener
  /** Longest silence while a reply is due. */
  readonly timeoutMs?: number
  /** Requests under way at once. */
  readonly depth?: number
  /** No read reaches beyond a multiple of this. Absent: as much as a server takes. */
  readonly unitBytes?: number | undefined
  readonly signal?: AbortSignal | undefined
}

interface Request extends Pending {
  /** For writes. */
  readonly data?: Uint8Array | undefined
  readonly resolve: (request: Request) => void
  readonly reject: (fault: Fault) => void
  /** Resolves when the kernel has taken them. */
  sent?: Promise<void>
}

const defaultTimeoutMs = 60_000
const defaultDepth = 16
/** Every server takes requests of this size. */
const requestMaximumBytes = 32 * MiB
const statusWindowBytes = 1024 * MiB

export class NbdClient implements AsyncDisposable {
  readonly sizeBytes: number
  readonly isReadOnly: boolean
  readonly #path: string
  readonly #socket: ExactSocket
  readonly #facts: Negotiated
  readonly #unitBytes: number
  readonly #depth: number
  readonly #pending = new Map<number, Request>()
  /** For which there was no room yet. */
  readonly #queue: Request[] = []
  #lastCookie = 0
  #ended: Fault | undefined

  private constructor(path: string, socket: ExactSocket, facts: Negotiated, options: NbdOptions) {
    this.#path = path
    this.#socket = socket
    this.#facts = facts
    this.#depth = options.depth ?? defaultDepth
    this.#unitBytes = options.unitBytes ?? requestMaximumBytes
    this.sizeBytes = facts.sizeBytes
    this.isReadOnly = facts.isReadOnly
    socket.isAnswerDue = () => this.#pending.size > 0
    const asked = {
      waiting: (cookie: number) => this.#pending.get(cookie),
      finish: (cookie: number) => this.#finish(cookie),
      ended: (fault: Fault) => this.#fail(fault),
    }
    socket.deliverTo(new NbdReplies(path, facts, asked))
  }

  /**
   * Connects to an export.
   * @throws Fault `unavailable` when nobody listens, `denied` when somebody else does, `missing` when the export or its bitmap does not exist, `timeout`
   */
  static async connect(path: string, options: NbdOptions = {}): Promise<NbdClient> {
    const { exportName = '', bitmap, timeoutMs = defaultTimeoutMs, signal } = options
    const socket = await ExactSocket.open({ path, timeoutMs, signal, listener: options.listener })
    try {
      return new NbdClient(path, socket, await new Negotiation(socket, path).run(exportName, bitmap), options)
    } catch (cause) {
      const fault =
        cause instanceof Fault ? cause : new Fault('failed', `the NBD server at '${path}' failed`, { cause })
      socket.destroy(fault)
      throw fault
    }
  }

  /** Fills the buffer from `offset`. */
  async read(offset: number, into: Uint8Array): Promise<void> {
    this.#checkRange(offset, into.length)
    const parts: Promise<Request>[] = []
    for (let at = 0; at < into.length;) {
      const part = into.subarray(at, at + this.#unitBytes - ((offset + at) % this.#unitBytes))
      parts.push(this.#request({ type: wire.command.read, offset: offset + at, length: part.length, into: part }))
      at += part.length
    }
    // Nobody may still write into the buffer afterwards.
    await allDone(parts)
  }

  /** The bytes must not change until it resolves. @throws Fault `denied` on a read-only export, `exhausted` */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    this.#checkRange(offset, bytes.length)
    if (this.isReadOnly) throw new Fault('denied', `the export at '${this.#path}' is read-only`)
    for (let at = 0; at < bytes.length; at += requestMaximumBytes) {
      const part = bytes.subarray(at, at + requestMaximumBytes)
      const request = { type: wire.command.write, offset: offset + at, length: part.length, data: part }
      const { sent } = await this.#request(request)
      // The caller may change the bytes once we return, also when the server answered before it had them all.
      await sent
    }
  }

  /** Makes every finished write survive power loss. */
  async flush(): Promise<void> {
    if (this.#facts.canFlush) await this.#request({ type: wire.command.flush, offset: 0, length: 0 })
  }

  /** What holds data and what reads as zeros, from start to end. All data where the server cannot tell. */
  async *extents(): AsyncGenerator<NbdExtent> {
    for (let offset = 0; offset < this.sizeBytes;) {
      const length = Math.min(statusWindowBytes, this.sizeBytes - offset)
      const { allocation, bitmap } = this.#facts
      if (allocation === undefined && bitmap === undefined) yield { offset, length, isZero: false }
      else yield* await this.#status(offset, length)
      offset += length
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#fail(new Fault('failed', `the connection to the NBD server at '${this.#path}' was closed`))
  }

  /** A server may describe less than it was asked for; then we ask for the rest. */
  async #status(offset: number, length: number): Promise<NbdExtent[]> {
    const extents: NbdExtent[] = []
    const { allocation, bitmap } = this.#facts
    for (let at = offset; at < offset + length;) {
      const { status } = await this.#request({
        type: wire.command.blockStatus,
        offset: at,
        length: offset + length - at,
      })
      const runsOf = (context: number | undefined) => (context === undefined ? undefined : (status?.get(context) ?? []))
      const described = extentsOf(at, { allocation: runsOf(allocation), bitmap: runsOf(bitmap) })
      const end = described.at(-1)
      if (!end) throw wire.nonsense(this.#path, 'it described no extent')
      extents.push(...described)
      at = end.offset + end.length
    }
    return extents
  }

  #checkRange(offset: number, length: number): void {
    if (this.#ended) throw this.#ended
    if (!Number.isSafeInteger(offset) || offset < 0 || offset + length > this.sizeBytes) {
      throw new Fault('invalid', `${length} bytes at ${offset} lie outside of the export at '${this.#path}'`)
    }
  }

  #request(what: Pick<Request, 'type' | 'offset' | 'length' | 'into' | 'data'>): Promise<Request> {
    if (this.#ended) return Promise.reject(this.#ended)
    const { promise, resolve, reject } = Promise.withResolvers<Request>()
    this.#queue.push({ ...what, received: 0, fault: undefined, resolve, reject })
    this.#sendQueued()
    return promise
  }

  /** Several at a time where more are waiting: what is sent in one go costs the kernel, and the server, one call. */
  #sendQueued(): void {
    const room = this.#depth - this.#pending.size
    if (this.#queue.length === 0 || room < Math.min(this.#queue.length, this.#depth / 4)) return
    const heads: Buffer[] = []
    for (const request of this.#queue.splice(0, room)) {
      this.#lastCookie += 1
      this.#pending.set(this.#lastCookie, request)
      // A server that looks for holes in what it knows to be data does so for nothing.
      const flags = request.type === wire.command.read && this.#facts.canSendWhole ? wire.wholeFlag : 0
      const head = wire.request(request.type, this.#lastCookie, request.offset, request.length, flags)
      if (request.data) request.sent = this.#send(head, request.data)
      else heads.push(head)
    }
    if (heads.length > 0) void this.#send(Buffer.concat(heads))
  }

  /** A failure to send ends the connection, which rejects what was asked. */
  async #send(...parts: readonly Uint8Array[]): Promise<void> {
    await Promise.allSettled(parts.map((part) => this.#socket.send(part)))
  }

  #finish(cookie: number): void {
    const request = this.#pending.get(cookie)
    this.#pending.delete(cookie)
    if (request?.fault) request.reject(request.fault)
    else request?.resolve(request)
    this.#sendQueued()
  }

  #fail(fault: Fault): void {
    this.#ended ??= fault
    // Nothing is put into a buffer of theirs after that.
    this.#socket.destroy(fault)
    for (const request of [...this.#pending.values(), ...this.#queue.splice(0)]) request.reject(this.#ended)
    this.#pending.clear()
  }
}
