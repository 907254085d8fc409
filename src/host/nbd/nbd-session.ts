/**
 * One client of a disk that is served over NBD: what it may ask for, and the answers.
 *
 * Whoever is at the other end may be a guest that broke out of its machine. So nothing is read ahead of what can be
 * answered: a request is taken from the socket when there is room for its answer, and room comes back when the client
 * has taken it. Answers may overtake each other; each is written in one go.
 */
import type { Socket } from 'node:net'
import { Fault } from '#base/fault.ts'
import type { ReadableDisk } from './nbd-export.ts'
import {
  allocationContext,
  allocationHole,
  allocationZero,
  chunkType,
  command,
  counted,
  handshake,
  info,
  oneExtentFlag,
  option,
  optionAnswer,
  optionReply,
  replyMagic,
  requestBytes,
  structuredPart,
  transmissionFlag,
  uint32,
  uint64,
} from './nbd-wire.ts'

const longestReadBytes = 32 * 1024 * 1024
const longestOptionBytes = 64 * 1024
const optionsMaximum = 64
const handshakeMs = 10_000
/** Of one client, on their way at once. */
const requestsMaximum = 16
const extentsMaximum = 4_096
const contextId = 1
const [inputOutputError, invalidRequest, notPermitted] = [5, 22, 1]

/** The client has gone. */
export class Gone extends Error {}

interface Request {
  readonly type: number
  readonly flags: number
  readonly cookie: Buffer
  readonly offset: number
  readonly length: number
}

export class NbdSession {
  readonly #socket: Socket
  readonly #disk: ReadableDisk
  readonly #onError: (cause: unknown) => void
  #isStructured = false
  #tellsAllocation = false
  #writing: Promise<void> = Promise.resolve()
  #requests = 0
  #bytes = 0
  #onRoom: () => void = () => {}

  constructor(socket: Socket, disk: ReadableDisk, onError: (cause: unknown) => void) {
    this.#socket = socket
    this.#disk = disk
    this.#onError = onError
  }

  /** Until the client leaves. @throws Gone; Fault `invalid` when it does not keep to the protocol */
  async serve(): Promise<void> {
    // Whoever says nothing must not hold one of the few places.
    this.#socket.setTimeout(handshakeMs, () => this.#socket.destroy())
    if (!(await this.#agree())) return
    this.#socket.setTimeout(0)
    for (;;) {
      const request = asRequest(await take(this.#socket, requestBytes))
      if (request.type === command.disconnect) return
      // What follows a write would have to be read past; this disk says that it takes none.
      if (request.type === command.write) throw new Fault('invalid', 'a write to a disk that is read-only')
      await this.#room(request)
      void this.#answer(request).catch((cause: unknown) => {
        if (!(cause instanceof Gone)) this.#onError(cause)
        this.#socket.destroy()
      })
    }
  }

  /** Waits until there is room for the answer, and takes it. */
  async #room({ type, length }: Request): Promise<void> {
    const bytes = type === command.read ? Math.min(length, longestReadBytes) : 0
    while (this.#requests >= requestsMaximum || (this.#bytes > 0 && this.#bytes + bytes > longestReadBytes)) {
      if (this.#socket.destroyed) throw new Gone()
      await new Promise<void>((resolve) => (this.#onRoom = resolve))
    }
    this.#requests += 1
    this.#bytes += bytes
  }

  async #answer(request: Request): Promise<void> {
    try {
      await this.#send(...(await this.#answerTo(request)))
    } finally {
      this.#requests -= 1
      if (request.type === command.read) this.#bytes -= Math.min(request.length, longestReadBytes)
      this.#onRoom()
    }
  }

  async #answerTo(request: Request): Promise<Buffer[]> {
    const { type, offset, length } = request
    if (type === command.flush) return this.#done(request)
    const isReading = type === command.read || type === command.blockStatus
    if (!isReading) return this.#refusal(request, notPermitted)
    const isInside = Number.isSafeInteger(offset) && offset + length <= this.#disk.sizeBytes
    const isMeant = type === command.read ? length <= longestReadBytes : this.#tellsAllocation
    if (length === 0 || !isInside || !isMeant) return this.#refusal(request, invalidRequest)
    try {
      return type === command.read ? await this.#content(request) : await this.#status(request)
    } catch (cause) {
      this.#onError(cause)
      return this.#refusal(request, inputOutputError)
    }
  }

  async #content(request: Request): Promise<Buffer[]> {
    const { offset, length, cookie } = request
    const isOne = { isDone: true, cookie }
    if (this.#isStructured && this.#disk.statusOf) {
      const [first] = await this.#disk.statusOf(offset, length)
      if (first?.isZero === true && first.length >= length) {
        return [structuredPart({ ...isOne, type: chunkType.hole }, 12), uint64(offset), uint32(length)]
      }
    }
    const content = Buffer.allocUnsafe(length)
    await this.#disk.read(offset, content)
    if (!this.#isStructured) return [simple(cookie, 0), content]
    return [structuredPart({ ...isOne, type: chunkType.data }, 8 + length), uint64(offset), content]
  }

  async #status({ offset, length, flags, cookie }: Request): Promise<Buffer[]> {
    const all = (await this.#disk.statusOf?.(offset, length)) ?? [{ length, isZero: false }]
    const most = (flags & oneExtentFlag) === 0 ? extentsMaximum : 1
    const parts: Buffer[] = []
    let left = length
    for (const one of all.slice(0, most)) {
      if (left <= 0) break
      const shown = Math.min(one.length, left)
      parts.push(uint32(shown), uint32(one.isZero ? allocationHole | allocationZero : 0))
      left -= shown
    }
    const body = Buffer.concat([uint32(contextId), ...parts])
    return [structuredPart({ isDone: true, type: chunkType.blockStatus, cookie }, body.length), body]
  }

  #done({ cookie }: Request): Buffer[] {
    if (!this.#isStructured) return [simple(cookie, 0)]
    return [structuredPart({ isDone: true, type: chunkType.none, cookie }, 0)]
  }

  #refusal({ cookie }: Request, error: number): Buffer[] {
    if (!this.#isStructured) return [simple(cookie, error)]
    // Without words: what went wrong is for the log of the node, not for a guest.
    const body = Buffer.concat([uint32(error), Buffer.alloc(2)])
    return [structuredPart({ isDone: true, type: chunkType.error, cookie }, body.length), body]
  }

  /** Answers options until the client goes on to the disk. False when it leaves. */
  async #agree(): Promise<boolean> {
    const flags = Buffer.alloc(2)
    flags.writeUInt16BE(handshake.fixedNewstyle | handshake.noZeroes)
    await this.#send(Buffer.from(handshake.magic, 'latin1'), flags)
    await take(this.#socket, 4)
    for (let count = 0; count < optionsMaximum; count += 1) {
      const head = await take(this.#socket, 16)
      const [number, length] = [head.readUInt32BE(8), head.readUInt32BE(12)]
      if (head.toString('latin1', 0, 8) !== handshake.optionMagic || length > longestOptionBytes) break
      const data = await take(this.#socket, length)
      await this.#send(...this.#answerToOption(number, data))
      if (number === option.abort) return false
      if (number === option.go && isForUs(data)) return true
    }
    throw new Fault('invalid', 'the client does not speak NBD')
  }

  #answerToOption(number: number, data: Buffer): Buffer[] {
    const answer = (type: number, content?: Buffer) => optionAnswer(number, type, content)
    const ack = answer(optionReply.ack)
    switch (number) {
      case option.abort:
        return [ack]
      case option.list:
        return [answer(optionReply.server, counted('')), ack]
      case option.structuredReply:
        this.#isStructured = true
        return [ack]
      case option.listMetaContext:
      case option.setMetaContext: {
        if (!isForUs(data) || !this.#isStructured) return [answer(optionReply.invalid)]
        const isSetting = number === option.setMetaContext
        const queries = queriesIn(data)
        const isWanted =
          queries.includes(allocationContext) || (!isSetting && (queries.length === 0 || queries.includes('base:')))
        if (isSetting) this.#tellsAllocation = isWanted
        const context = Buffer.concat([uint32(isSetting ? contextId : 0), Buffer.from(allocationContext)])
        return isWanted ? [answer(optionReply.metaContext, context), ack] : [ack]
      }
      case option.info:
      case option.go:
        if (!isForUs(data)) return [answer(optionReply.unknown)]
        return [answer(optionReply.info, this.#facts()), answer(optionReply.info, blockSizes()), ack]
      default:
        return [answer(optionReply.unsupported)]
    }
  }

  #facts(): Buffer {
    const { hasFlags, readOnly, sendsFlush, sendsDf, isSameForAll } = transmissionFlag
    const facts = Buffer.alloc(12)
    facts.writeUInt16BE(info.export, 0)
    facts.writeBigUInt64BE(BigInt(this.#disk.sizeBytes), 2)
    facts.writeUInt16BE(hasFlags | readOnly | sendsFlush | isSameForAll | (this.#isStructured ? sendsDf : 0), 10)
    return facts
  }

  /** Answers are whole: nothing of another comes between their parts. Returns when the client has room for more. */
  async #send(...parts: readonly Buffer[]): Promise<void> {
    const before = this.#writing
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#writing = promise
    try {
      await before
      if (this.#socket.destroyed) throw new Gone()
      this.#socket.cork()
      let hasRoom = true
      for (const part of parts) hasRoom = this.#socket.write(part)
      this.#socket.uncork()
      if (!hasRoom) await untilOneOf(this.#socket, ['drain', 'close'])
    } finally {
      resolve()
    }
  }
}

function asRequest(head: Buffer): Request {
  if (head.readUInt32BE(0) !== 0x2560_9513) throw new Fault('invalid', 'the client does not speak NBD')
  return {
    flags: head.readUInt16BE(4),
    type: head.readUInt16BE(6),
    cookie: Buffer.from(head.subarray(8, 16)),
    offset: Number(head.readBigUInt64BE(16)),
    length: head.readUInt32BE(24),
  }
}

/** The one disk there is has the empty name. */
function isForUs(data: Buffer): boolean {
  return data.length >= 6 && data.readUInt32BE(0) === 0
}

/** What a client wants to be told about, behind the name of the disk. */
function queriesIn(data: Buffer): string[] {
  const queries: string[] = []
  let at = 8
  for (let left = data.length >= 8 ? data.readUInt32BE(4) : 0; left > 0 && at + 4 <= data.length; left -= 1) {
    const length = data.readUInt32BE(at)
    queries.push(data.toString('utf8', at + 4, at + 4 + length))
    at += 4 + length
  }
  return queries
}

/** Any place can be read; what a client asks for at once has its bound. */
function blockSizes(): Buffer {
  const type = Buffer.alloc(2)
  type.writeUInt16BE(info.blockSize)
  return Buffer.concat([type, uint32(1), uint32(128 * 1024), uint32(longestReadBytes)])
}

function simple(cookie: Buffer, error: number): Buffer {
  return Buffer.concat([uint32(replyMagic.simple), uint32(error), cookie])
}

async function take(socket: Socket, bytes: number): Promise<Buffer> {
  if (bytes === 0) return Buffer.alloc(0)
  for (;;) {
    const part: unknown = socket.read(bytes)
    if (Buffer.isBuffer(part) && part.length === bytes) return part
    if (part !== null || socket.readableEnded || socket.destroyed) throw new Gone()
    await untilOneOf(socket, ['readable', 'end', 'close'])
  }
}

/** Leaves no listener behind: there may be one wait for each of a million answers. */
function untilOneOf(socket: Socket, events: readonly string[]): Promise<void> {
  return new Promise((resolve) => {
    const settle = () => {
      for (const event of events) socket.off(event, settle)
      resolve()
    }
    for (const event of events) socket.on(event, settle)
  })
}
