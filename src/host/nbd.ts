/**
 * A client for Network Block Device servers on unix sockets: QEMU's, `qemu-nbd`, `qemu-storage-daemon`.
 *
 * Speaks fixed newstyle with `NBD_OPT_GO`, structured replies and `base:allocation` where the server has
 * them. Several reads are under way at once, at most `depth`; each reply is read straight into the buffer
 * of the read that asked for it. The server is not trusted: every length it names is checked against what
 * was asked before a byte is stored, and the first nonsense ends the connection.
 */
import { Fault } from '#base/fault.ts'
import { KiB, MiB } from '#base/bytes.ts'
import { ExactSocket } from './nbd-socket.ts'
import {
  allocationContext,
  bitmapContext,
  extentsOf,
  type NbdExtent,
  parseStatus,
  type StatusRun,
} from './nbd-status.ts'
import * as wire from './nbd-wire.ts'
import type { Listener } from './unix-peer.ts'

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

interface Negotiated {
  readonly sizeBytes: number
  readonly isReadOnly: boolean
  readonly canFlush: boolean
  readonly isStructured: boolean
  /** Number of `base:allocation`; absent where the server has no block status. */
  readonly allocation: number | undefined
  /** Number of the bitmap that was asked for. */
  readonly bitmap: number | undefined
}

const defaultTimeoutMs = 60_000
const defaultDepth = 16
/** Every server takes requests of this size. */
const requestMaximumBytes = 32 * MiB
const optionReplyMaximumBytes = 64 * KiB
const statusMaximumBytes = 8 * MiB
const messageMaximumBytes = 4 * KiB
const statusWindowBytes = 1024 * MiB

export class NbdClient implements AsyncDisposable {
  readonly sizeBytes: number
  readonly isReadOnly: boolean
  readonly #path: string
  readonly #socket: ExactSocket
  readonly #facts: Negotiated
  readonly #pending = new Map<number, Pending>()
  readonly #queue: (() => void)[] = []
  #free: number
  #lastCookie = 0
  #ended: Fault | undefined

  private constructor(path: string, socket: ExactSocket, facts: Negotiated, depth: number) {
    this.#path = path
    this.#socket = socket
    this.#facts = facts
    this.#free = depth
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
    const { exportName = '', bitmap, timeoutMs = defaultTimeoutMs, depth = defaultDepth, signal } = options
    const socket = await ExactSocket.open({ path, timeoutMs, signal, listener: options.listener })
    try {
      return new NbdClient(path, socket, await new Negotiation(socket, path).run(exportName, bitmap), depth)
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
    for (let at = 0; at < into.length; at += requestMaximumBytes) {
      const part = into.subarray(at, at + requestMaximumBytes)
      await this.#request({ type: wire.command.read, offset: offset + at, length: part.length, into: part })
    }
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
    const head = wire.request(what.type, this.#lastCookie, what.offset, what.length)
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
    const why = text === '' ? wire.errorName(error) : `${wire.errorName(error)} (${printable(text)})`
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

/** The talk before the first request. */
class Negotiation {
  readonly #socket: ExactSocket
  readonly #path: string

  constructor(socket: ExactSocket, path: string) {
    this.#socket = socket
    this.#path = path
  }

  async run(exportName: string, bitmap?: string): Promise<Negotiated> {
    const greeting = await this.#socket.take(18)
    const flags = greeting.readUInt16BE(16)
    if (greeting.toString('latin1', 0, 16) !== wire.handshake.magic || (flags & wire.handshake.fixedNewstyle) === 0) {
      throw this.#nonsense('it does not greet as one')
    }
    await this.#socket.send(wire.uint32(wire.handshake.fixedNewstyle | (flags & wire.handshake.noZeroes)))
    const isStructured = (await this.#ask(wire.option.structuredReply, Buffer.alloc(0))) !== undefined
    const wanted = [allocationContext, ...(bitmap === undefined ? [] : [bitmapContext(bitmap)])]
    const contexts = isStructured ? await this.#contexts(exportName, wanted) : new Map<string, number>()
    if (bitmap !== undefined && !contexts.has(bitmapContext(bitmap))) {
      throw new Fault('missing', `the NBD server at '${this.#path}' has no bitmap '${bitmap}'`)
    }
    const answer = await this.#ask(
      wire.option.go,
      Buffer.concat([wire.counted(exportName), Buffer.alloc(2)]),
      exportName,
    )
    const facts = answer?.find(({ data }) => data.length >= 12 && data.readUInt16BE(0) === wire.info.export)
    if (!facts) throw this.#nonsense('it does not describe its export')
    const sizeBytes = Number(facts.data.readBigUInt64BE(2))
    if (!Number.isSafeInteger(sizeBytes)) throw this.#nonsense('its export is larger than any disk')
    const has = facts.data.readUInt16BE(10)
    return {
      sizeBytes,
      isReadOnly: (has & wire.transmissionFlag.readOnly) !== 0,
      canFlush: (has & wire.transmissionFlag.sendsFlush) !== 0,
      isStructured,
      allocation: contexts.get(allocationContext),
      bitmap: bitmap === undefined ? undefined : contexts.get(bitmapContext(bitmap)),
    }
  }

  /** Numbers of those of the contexts the server has. */
  async #contexts(exportName: string, wanted: readonly string[]): Promise<Map<string, number>> {
    const query = [wire.counted(exportName), wire.uint32(wanted.length), ...wanted.map(wire.counted)]
    const answer = (await this.#ask(wire.option.setMetaContext, Buffer.concat(query), exportName)) ?? []
    const found = answer.filter(({ type, data }) => type === wire.optionReply.metaContext && data.length > 4)
    return new Map(found.map(({ data }) => [data.toString('utf8', 4), data.readUInt32BE(0)]))
  }

  /** The replies to an option before its acknowledgement; nothing when the server does not know the option. */
  async #ask(number: number, data: Buffer, exportName = ''): Promise<{ type: number; data: Buffer }[] | undefined> {
    await this.#socket.send(wire.optionRequest(number, data))
    const replies: { type: number; data: Buffer }[] = []
    for (;;) {
      const head = await this.#socket.take(wire.optionReplyBytes)
      const [type, length] = [head.readUInt32BE(12), head.readUInt32BE(16)]
      const isReply = head.readBigUInt64BE(0) === wire.handshake.replyMagic && head.readUInt32BE(8) === number
      if (!isReply || length > optionReplyMaximumBytes || replies.length > 64) throw this.#nonsense('its answer is odd')
      const payload = await this.#socket.take(length)
      if (type === wire.optionReply.ack) return replies
      if (type === wire.optionReply.unsupported && number !== wire.option.go) return undefined
      if ((type & wire.optionReply.errorFlag) !== 0) {
        const said = payload.length > 0 ? `: ${printable(payload.toString('utf8'))}` : ''
        throw new Fault('missing', `the NBD server at '${this.#path}' has no export '${exportName}'${said}`)
      }
      replies.push({ type, data: Buffer.from(payload) })
    }
  }

  #nonsense(how: string): Fault {
    return new Fault('failed', `the NBD server at '${this.#path}' breaks the protocol: ${how}`)
  }
}

/** What a server says may end up on a terminal. */
function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 200)
}
