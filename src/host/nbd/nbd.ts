/**
 * A client for Network Block Device servers on unix sockets: QEMU's, `qemu-nbd`, `qemu-storage-daemon`.
 *
 * Speaks fixed newstyle with `NBD_OPT_GO`, structured replies and `base:allocation` where the server has
 * them. Several reads are under way at once, at most `depth`; each reply is read straight into the buffer
 * of the read that asked for it. The server is not trusted: every length it names is checked against what
 * was asked before a byte is stored, and the first nonsense ends the connection.
 */
import { allDone } from '#base/all-done.ts'
import { Fault } from '#base/fault.ts'
import { KiB, MiB } from '#base/bytes.ts'
import { ExactSocket } from './nbd-socket.ts'
import { extentsOf, type NbdExtent, parseStatus, type StatusRun } from './nbd-status.ts'
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

interface Pending {
  readonly type: number
  readonly offset: number
  readonly length: number
  /** For reads. */
  readonly into?: Uint8Array | undefined
  /** Bytes of a read that have come. */
  received: number
  /** For block status, by context. */
  readonly status: Map<number, StatusRun[]>
  fault: Fault | undefined
  readonly resolve: () => void
  readonly reject: (fault: Fault) => void
}

const defaultTimeoutMs = 60_000
const defaultDepth = 16
/** Every server takes requests of this size. */
const requestMaximumBytes = 32 * MiB
const statusMaximumBytes = 8 * MiB
const messageMaximumBytes = 4 * KiB
const statusWindowBytes = 1024 * MiB

export class NbdClient implements AsyncDisposable {
  readonly sizeBytes: number
  readonly isReadOnly: boolean
  readonly #path: string
  readonly #socket: ExactSocket
  readonly #facts: Negotiated
  readonly #unitBytes: number
  readonly #pending = new Map<number, Pending>()
  readonly #queue: (() => void)[] = []
  #free: number
  #lastCookie = 0
  #ended: Fault | undefined

  private constructor(path: string, socket: ExactSocket, facts: Negotiated, options: NbdOptions) {
    this.#path = path
    this.#socket = socket
    this.#facts = facts
    this.#free = options.depth ?? defaultDepth
    this.#unitBytes = options.unitBytes ?? requestMaximumBytes
    this.sizeBytes = facts.sizeBytes
    this.isReadOnly = facts.isReadOnly
    socket.isAnswerDue = () => this.#pending.size > 0
    void this.#receive()
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
    const parts: Promise<Pending>[] = []
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
      await this.#request({ type: wire.command.write, offset: offset + at, length: part.length }, part)
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
    const fault = new Fault('failed', `the connection to the NBD server at '${this.#path}' was closed`)
    this.#fail(fault)
    this.#socket.finish(wire.request(wire.command.disconnect, 0, 0, 0), fault)
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
      const runsOf = (context: number | undefined) => (context === undefined ? undefined : (status.get(context) ?? []))
      const described = extentsOf(at, { allocation: runsOf(allocation), bitmap: runsOf(bitmap) })
      const end = described.at(-1)
      if (!end) throw this.#nonsense('it described no extent')
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

  async #request(what: Pick<Pending, 'type' | 'offset' | 'length' | 'into'>, data?: Uint8Array): Promise<Pending> {
    await this.#turn()
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const pending: Pending = { ...what, received: 0, status: new Map(), fault: undefined, resolve, reject }
    this.#lastCookie += 1
    if (this.#ended) reject(this.#ended)
    else this.#pending.set(this.#lastCookie, pending)
    // A server that looks for holes in what it knows to be data does so for nothing.
    const flags = what.type === wire.command.read && this.#facts.canSendWhole ? wire.wholeFlag : 0
    const head = wire.request(what.type, this.#lastCookie, what.offset, what.length, flags)
    // A failure to send ends the connection, which rejects this request with all others.
    const sent = data ? Promise.all([this.#socket.send(head), this.#socket.send(data)]) : this.#socket.send(head)
    sent.catch(() => {})
    try {
      await promise
      // The caller may change the bytes once we return, also when the server answered before it had them all.
      if (data) await sent
      return pending
    } finally {
      this.#free += 1
      this.#queue.shift()?.()
    }
  }

  /** Waits until fewer than `depth` requests are under way. */
  async #turn(): Promise<void> {
    while (this.#free === 0) await new Promise<void>((resolve) => this.#queue.push(resolve))
    this.#free -= 1
  }

  async #receive(): Promise<void> {
    try {
      while (!this.#ended) await this.#reply()
    } catch (cause) {
      this.#fail(cause instanceof Fault ? cause : this.#nonsense('its reply cannot be read', cause))
    }
  }

  async #reply(): Promise<void> {
    const magic = (await this.#socket.take(4)).readUInt32BE(0)
    if (magic === wire.replyMagic.structured && this.#facts.isStructured) return this.#structured()
    if (magic !== wire.replyMagic.simple) throw this.#nonsense('its reply has no magic number')
    const head = await this.#socket.take(wire.simpleReplyBytes - 4)
    const [error, cookie] = [head.readUInt32BE(0), Number(head.readBigUInt64BE(4))]
    const pending = this.#waiting(cookie)
    if (error !== 0) pending.fault = this.#refused(pending, error)
    else if (pending.into && this.#facts.isStructured) throw this.#nonsense('it answered a read in the old form')
    else if (pending.into) {
      await this.#socket.fill(pending.into)
      pending.received = pending.length
    }
    this.#finish(cookie, pending)
  }

  async #structured(): Promise<void> {
    const { isDone, type, cookie, length } = wire.structuredHead(await this.#socket.take(wire.structuredReplyBytes - 4))
    const pending = this.#waiting(cookie)
    if (type === wire.chunkType.data) await this.#data(pending, length)
    else if (type === wire.chunkType.hole) await this.#hole(pending, length)
    else if (type === wire.chunkType.blockStatus) await this.#describe(pending, length)
    else if ((type & wire.chunkErrorFlag) !== 0) await this.#error(pending, length)
    else if (type !== wire.chunkType.none || length !== 0 || !isDone) {
      throw this.#nonsense(`it sent a reply of type ${type}`)
    }
    if (isDone) this.#finish(cookie, pending)
  }

  async #data(pending: Pending, length: number): Promise<void> {
    if (length <= 8) throw this.#nonsense('it sent data without data')
    const offset = Number((await this.#socket.take(8)).readBigUInt64BE(0))
    await this.#socket.fill(this.#partOf(pending, offset, length - 8))
  }

  async #hole(pending: Pending, length: number): Promise<void> {
    if (length !== 12) throw this.#nonsense('it sent a hole of odd form')
    const hole = await this.#socket.take(12)
    this.#partOf(pending, Number(hole.readBigUInt64BE(0)), hole.readUInt32BE(8)).fill(0)
  }

  /** The part of a read's buffer a reply belongs to. No byte may come twice, so what came can be counted. */
  #partOf(pending: Pending, offset: number, length: number): Uint8Array {
    const at = offset - pending.offset
    const isInside = pending.into && at >= 0 && length > 0 && at + length <= pending.length
    if (!pending.into || !isInside) throw this.#nonsense('it sent data nobody asked for')
    pending.received += length
    if (pending.received > pending.length) throw this.#nonsense('it sent data twice')
    return pending.into.subarray(at, at + length)
  }

  async #describe(pending: Pending, length: number): Promise<void> {
    const isAsked = pending.type === wire.command.blockStatus && length <= statusMaximumBytes
    const status = isAsked && length > 0 ? parseStatus(await this.#socket.take(length), pending.length) : undefined
    if (!status) throw this.#nonsense('it sent a block status of odd form')
    const { context, runs } = status
    const isOurs = context === this.#facts.allocation || context === this.#facts.bitmap
    if (!isOurs || pending.status.has(context)) throw this.#nonsense('it described another context')
    pending.status.set(context, runs)
  }

  async #error(pending: Pending, length: number): Promise<void> {
    if (length < 6 || length > messageMaximumBytes) throw this.#nonsense('it sent an error of odd form')
    const payload = await this.#socket.take(length)
    const text = payload.toString('utf8', 6, Math.min(length, 6 + payload.readUInt16BE(4)))
    pending.fault ??= this.#refused(pending, payload.readUInt32BE(0), text)
  }

  #finish(cookie: number, pending: Pending): void {
    if (!pending.fault && pending.into && pending.received !== pending.length) {
      throw this.#nonsense(`it sent ${pending.received} of ${pending.length} bytes`)
    }
    this.#pending.delete(cookie)
    if (pending.fault) pending.reject(pending.fault)
    else pending.resolve()
  }

  #waiting(cookie: number): Pending {
    const pending = this.#pending.get(cookie)
    if (!pending) throw this.#nonsense('it answered a question nobody asked')
    return pending
  }

  #refused({ type, offset, length }: Pending, error: number, text = ''): Fault {
    const verb = Object.entries(wire.command).find(([, number]) => number === type)?.[0] ?? 'request'
    const why = text === '' ? wire.errorName(error) : `${wire.errorName(error)} (${wire.printable(text)})`
    const kind = error === 28 ? 'exhausted' : error === 1 ? 'denied' : 'failed'
    return new Fault(kind, `the NBD server at '${this.#path}' refused ${verb} of ${length} bytes at ${offset}: ${why}`)
  }

  #nonsense(how: string, cause?: unknown): Fault {
    return new Fault('failed', `the NBD server at '${this.#path}' breaks the protocol: ${how}`, { cause })
  }

  #fail(fault: Fault): void {
    this.#ended ??= fault
    this.#socket.destroy(fault)
    for (const pending of this.#pending.values()) pending.reject(fault)
    this.#pending.clear()
  }
}
