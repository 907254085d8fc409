/**
 * What an NBD server replies, put where it belongs: data go from the kernel straight into the buffer of the read that asked
 * for them. The server is not trusted: every length it names is checked against what was asked before a byte is stored, and
 * the first nonsense ends the connection.
 */
import { Fault } from '#base/fault.ts'
import { KiB, MiB } from '#base/bytes.ts'
import type { Negotiated } from './nbd-negotiation.ts'
import type { Receiver } from './nbd-socket.ts'
import { parseStatus, type StatusRun } from './nbd-status.ts'
import * as wire from './nbd-wire.ts'

/** A request that was sent. */
export interface Pending {
  readonly type: number
  readonly offset: number
  readonly length: number
  /** For reads. */
  readonly into?: Uint8Array | undefined
  /** Bytes of a read that have come. */
  received: number
  /** For block status, by context. */
  status?: Map<number, StatusRun[]>
  fault: Fault | undefined
}

export interface Asked {
  /** The request of that number, while its reply is due. */
  readonly waiting: (cookie: number) => Pending | undefined
  /** All of its reply has come. */
  readonly finish: (cookie: number) => void
  readonly ended: (fault: Fault) => void
}

interface Body {
  readonly into: Uint8Array
  readonly whenFull: () => void
}

const statusMaximumBytes = 8 * MiB
const messageMaximumBytes = 4 * KiB
const holeBytes = 12

export class NbdReplies implements Receiver {
  readonly #path: string
  readonly #facts: Negotiated
  readonly #asked: Asked
  /** As much as data have before them, which is what nearly every reply is. A shorter head may bring some of the next along. */
  readonly #head: Buffer
  #headBytes = 0
  /** What follows the head that was read last. */
  #body: Body | undefined
  #bodyBytes = 0

  constructor(path: string, facts: Negotiated, asked: Asked) {
    this.#path = path
    this.#facts = facts
    this.#asked = asked
    this.#head = Buffer.allocUnsafeSlow(facts.isStructured ? wire.dataHeadBytes : wire.simpleReplyBytes)
  }

  place(): Uint8Array {
    return this.#body ? this.#body.into.subarray(this.#bodyBytes) : this.#head.subarray(this.#headBytes)
  }

  came(count: number): void {
    try {
      if (this.#body) return this.#filled(this.#body, count)
      this.#headBytes += count
      while (this.#takeHead());
    } catch (cause) {
      throw cause instanceof Fault ? cause : wire.nonsense(this.#path, 'its reply cannot be read', cause)
    }
  }

  /** @returns whether the next head may have come along with it */
  #takeHead(): boolean {
    const used = this.#reply()
    if (used === 0) return false
    let rest = this.#head.subarray(used, this.#headBytes)
    if (this.#body) {
      const part = rest.subarray(0, this.#body.into.length)
      this.#body.into.set(part)
      rest = rest.subarray(part.length)
      this.#filled(this.#body, part.length)
    }
    this.#head.set(rest)
    this.#headBytes = rest.length
    return rest.length > 0
  }

  ended(fault: Fault): void {
    this.#asked.ended(fault)
  }

  #filled(body: Body, count: number): void {
    this.#bodyBytes += count
    if (this.#bodyBytes < body.into.length) return
    this.#body = undefined
    this.#bodyBytes = 0
    body.whenFull()
  }

  #follows(into: Uint8Array, whenFull: () => void): void {
    this.#body = { into, whenFull }
  }

  /** @returns length of the head of a reply; 0 when it has not come yet */
  #reply(): number {
    const [head, bytes] = [this.#head, this.#headBytes]
    if (bytes < wire.simpleReplyBytes) return 0
    const magic = head.readUInt32BE(0)
    if (magic !== wire.replyMagic.structured || !this.#facts.isStructured) {
      if (magic !== wire.replyMagic.simple) throw this.#nonsense('its reply has no magic number')
      this.#simple(wire.uint64At(head, 8), head.readUInt32BE(4))
      return wire.simpleReplyBytes
    }
    if (bytes < wire.structuredReplyBytes) return 0
    const reply = wire.structuredHead(head)
    if (reply.type === wire.chunkType.data) {
      if (reply.length <= 8) throw this.#nonsense('it sent data without data')
      if (bytes < wire.dataHeadBytes) return 0
      this.#data(reply, wire.uint64At(head, wire.structuredReplyBytes))
      return wire.dataHeadBytes
    }
    this.#structured(reply)
    return wire.structuredReplyBytes
  }

  #simple(cookie: number, error: number): void {
    const pending = this.#waiting(cookie)
    if (error !== 0) pending.fault = this.#refused(pending, error)
    else if (pending.into && this.#facts.isStructured) throw this.#nonsense('it answered a read in the old form')
    else if (pending.into) {
      pending.received = pending.length
      return this.#follows(pending.into, () => this.#finish(cookie, pending))
    }
    this.#finish(cookie, pending)
  }

  #structured({ isDone, type, cookie, length }: wire.StructuredHead): void {
    const pending = this.#waiting(cookie)
    const take = (bytes: number, use: (payload: Buffer) => void) => {
      const payload = Buffer.allocUnsafe(bytes)
      this.#follows(payload, () => {
        use(payload)
        if (isDone) this.#finish(cookie, pending)
      })
    }
    if (type === wire.chunkType.hole) {
      if (length !== holeBytes) throw this.#nonsense('it sent a hole of odd form')
      take(length, (hole) => void this.#partOf(pending, wire.uint64At(hole, 0), hole.readUInt32BE(8)).fill(0))
    } else if (type === wire.chunkType.blockStatus) {
      const isAsked = pending.type === wire.command.blockStatus && length > 0 && length <= statusMaximumBytes
      if (!isAsked) throw this.#nonsense('it sent a block status of odd form')
      take(length, (status) => this.#describe(pending, status))
    } else if ((type & wire.chunkErrorFlag) !== 0) {
      if (length < 6 || length > messageMaximumBytes) throw this.#nonsense('it sent an error of odd form')
      take(length, (payload) => this.#error(pending, payload))
    } else if (type === wire.chunkType.none && length === 0 && isDone) this.#finish(cookie, pending)
    else throw this.#nonsense(`it sent a reply of type ${type}`)
  }

  #data({ isDone, cookie, length }: wire.StructuredHead, offset: number): void {
    const pending = this.#waiting(cookie)
    this.#follows(this.#partOf(pending, offset, length - 8), () => {
      if (isDone) this.#finish(cookie, pending)
    })
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

  #describe(pending: Pending, payload: Buffer): void {
    const described = parseStatus(payload, pending.length)
    if (!described) throw this.#nonsense('it sent a block status of odd form')
    const { context, runs } = described
    const isOurs = context === this.#facts.allocation || context === this.#facts.bitmap
    pending.status ??= new Map()
    if (!isOurs || pending.status.has(context)) throw this.#nonsense('it described another context')
    pending.status.set(context, runs)
  }

  #error(pending: Pending, payload: Buffer): void {
    const text = payload.toString('utf8', 6, Math.min(payload.length, 6 + payload.readUInt16BE(4)))
    pending.fault ??= this.#refused(pending, payload.readUInt32BE(0), text)
  }

  #finish(cookie: number, pending: Pending): void {
    if (!pending.fault && pending.into && pending.received !== pending.length) {
      throw this.#nonsense(`it sent ${pending.received} of ${pending.length} bytes`)
    }
    this.#asked.finish(cookie)
  }

  #waiting(cookie: number): Pending {
    const pending = this.#asked.waiting(cookie)
    if (!pending) throw this.#nonsense('it answered a question nobody asked')
    return pending
  }

  #refused({ type, offset, length }: Pending, error: number, text = ''): Fault {
    const verb = Object.entries(wire.command).find(([, number]) => number === type)?.[0] ?? 'request'
    const why = text === '' ? wire.errorName(error) : `${wire.errorName(error)} (${wire.printable(text)})`
    const kind = error === 28 ? 'exhausted' : error === 1 ? 'denied' : 'failed'
    return new Fault(kind, `the NBD server at '${this.#path}' refused ${verb} of ${length} bytes at ${offset}: ${why}`)
  }

  #nonsense(how: string): Fault {
    return wire.nonsense(this.#path, how)
  }
}
