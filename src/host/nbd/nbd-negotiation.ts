/** The talk with an NBD server before the first request: what it can do, and what its export is. */
import { KiB } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import type { ExactSocket } from './nbd-socket.ts'
import { bitmapContext } from './nbd-status.ts'
import * as wire from './nbd-wire.ts'

const optionReplyMaximumBytes = 64 * KiB

export interface Negotiated {
  readonly sizeBytes: number
  readonly isReadOnly: boolean
  readonly canFlush: boolean
  /** It answers a read in one piece when asked to. */
  readonly canSendWhole: boolean
  readonly isStructured: boolean
  /** Number of `base:allocation`; absent where the server has no block status. */
  readonly allocation: number | undefined
  /** Number of the bitmap that was asked for. */
  readonly bitmap: number | undefined
}

export class Negotiation {
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
    const wanted = [wire.allocationContext, ...(bitmap === undefined ? [] : [bitmapContext(bitmap)])]
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
      canSendWhole: (has & wire.transmissionFlag.sendsDf) !== 0,
      isStructured,
      allocation: contexts.get(wire.allocationContext),
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
        const said = payload.length > 0 ? `: ${wire.printable(payload.toString('utf8'))}` : ''
        throw new Fault('missing', `the NBD server at '${this.#path}' has no export '${exportName}'${said}`)
      }
      replies.push({ type, data: Buffer.from(payload) })
    }
  }

  #nonsense(how: string): Fault {
    return wire.nonsense(this.#path, how)
  }
}
