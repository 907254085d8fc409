/**
 * A WebSocket (RFC 6455) as a stream of bytes, for either side of it.
 *
 * What is served over it is a stream anyway, so the borders of messages are not kept: payload is handed on as it
 * arrives, text or binary, and no frame is ever held as a whole. Back-pressure goes through: who does not read
 * stops the socket, and a write is done when the socket has taken it. A peer that answers no ping is gone.
 */
import { createHash } from 'node:crypto'
import { Duplex } from 'node:stream'
import { KiB } from '#base/bytes.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import { systemRandom } from '#base/random.ts'

export const webSocketBounds = {
  /** Of a frame that comes in; what goes out is cut into smaller ones. */
  frameBytes: 4_096 * KiB,
  sentFrameBytes: 64 * KiB,
  pingEveryMs: 30_000,
  /** Between the end of our words and the other side's. */
  closingMs: 2_000,
} as const

export interface WebSocketOptions {
  /** A client hides its payload under a mask; a server refuses one that does not. */
  readonly isClient?: boolean
  readonly clock?: Clock
  readonly pingEveryMs?: number
}

const opcodes = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const
const closed = { normally: 1000, badly: 1002, tooLong: 1009, failed: 1011 } as const
const controlBytes = 125

interface Frame {
  readonly opcode: number
  readonly mask: Uint8Array | undefined
  readonly length: number
  /** Bytes that have arrived. */
  taken: number
  /** Of a control frame. */
  readonly control: Buffer[]
}

export class WebSocketStream extends Duplex {
  readonly #socket: Duplex
  readonly #isClient: boolean
  readonly #clock: Clock
  readonly #over = new AbortController()
  #head = Buffer.alloc(0)
  #frame: Frame | undefined
  #isHeard = true
  #hasSaidClose = false
  #hasHeardClose = false

  /** @param begun bytes that came with the handshake */
  constructor(socket: Duplex, begun: Uint8Array, options: WebSocketOptions = {}) {
    super()
    const { isClient = false, clock = systemClock, pingEveryMs = webSocketBounds.pingEveryMs } = options
    this.#socket = socket
    this.#isClient = isClient
    this.#clock = clock
    socket.on('data', (part: Buffer) => this.#take(part))
    socket.on('error', () => this.destroy())
    socket.on('close', () => this.destroy())
    socket.on('end', () => this.destroy())
    if (begun.length > 0) this.#take(Buffer.from(begun))
    void this.#keepAlive(pingEveryMs)
  }

  override _read(): void {
    this.#socket.resume()
  }

  override _write(part: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (this.#socket.destroyed) return done()
    const { sentFrameBytes } = webSocketBounds
    for (let at = 0; at < part.length; at += sentFrameBytes) {
      const piece = part.subarray(at, at + sentFrameBytes)
      this.#send(opcodes.binary, piece, at + sentFrameBytes >= part.length ? () => done() : undefined)
    }
    if (part.length === 0) done()
  }

  /** Says goodbye and waits a moment for the other side to do so. */
  override _final(done: (error?: Error | null) => void): void {
    this.#sayClose(closed.normally, '')
    this.#clock.sleep(webSocketBounds.closingMs, this.#over.signal).then(
      () => this.destroy(),
      () => {}, // It is closed.
    )
    done()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#over.abort()
    if (error) this.#sayClose(closed.failed, error.message)
    this.#socket.end()
    // What was said last gets its chance; a peer that does not take it loses the connection all the same.
    this.#clock.sleep(webSocketBounds.closingMs, ended(this.#socket)).then(
      () => this.#socket.destroy(),
      () => {},
    )
    done(error)
  }

  async #keepAlive(everyMs: number): Promise<void> {
    try {
      for (;;) {
        await this.#clock.sleep(everyMs, this.#over.signal)
        // Waiting for us to take what it sent, it cannot be heard.
        if (!this.#isHeard && !this.#socket.isPaused()) return void this.destroy(new Error('no sign of life'))
        this.#isHeard = false
        this.#send(opcodes.ping, Buffer.alloc(0))
      }
    } catch {
      // It is closed.
    }
  }

  #take(part: Buffer): void {
    this.#isHeard = true
    let rest = part
    while (rest.length > 0 && !this.destroyed && !this.#hasHeardClose) {
      rest = this.#frame ? this.#payload(this.#frame, rest) : this.#begin(rest)
    }
  }

  /** @returns what lies behind the head, once that is whole */
  #begin(part: Buffer): Buffer {
    const bytes = this.#head.length === 0 ? part : Buffer.concat([this.#head, part])
    const frame = this.#frameFrom(bytes)
    this.#head = frame || this.destroyed ? Buffer.alloc(0) : Buffer.from(bytes)
    if (!frame) return Buffer.alloc(0)
    this.#frame = frame.frame
    // A frame without payload is whole.
    if (frame.frame.length === 0) this.#complete(frame.frame)
    return bytes.subarray(frame.headBytes)
  }

  #frameFrom(bytes: Buffer): { frame: Frame; headBytes: number } | undefined {
    if (bytes.length < 2) return undefined
    const [first = 0, second = 0] = bytes
    const opcode = first & 0x0f
    const short = second & 0x7f
    const isMasked = (second & 0x80) !== 0
    const lengthBytes = short === 126 ? 2 : short === 127 ? 8 : 0
    const headBytes = 2 + lengthBytes + (isMasked ? 4 : 0)
    const isControl = opcode >= opcodes.close
    const isKnown = Object.values<number>(opcodes).includes(opcode)
    const isWrong = (first & 0x70) !== 0 || !isKnown || (isControl && (short > controlBytes || first < 0x80))
    if (isWrong || isMasked === this.#isClient) return this.#refuse(closed.badly, 'this is no frame')
    if (bytes.length < headBytes) return undefined
    const length =
      lengthBytes === 8 ? Number(bytes.readBigUInt64BE(2)) : lengthBytes === 2 ? bytes.readUInt16BE(2) : short
    if (length > webSocketBounds.frameBytes) return this.#refuse(closed.tooLong, `a frame of ${length} bytes`)
    const mask = isMasked ? Buffer.from(bytes.subarray(headBytes - 4, headBytes)) : undefined
    return { frame: { opcode, mask, length, taken: 0, control: [] }, headBytes }
  }

  #payload(frame: Frame, bytes: Buffer): Buffer {
    const size = Math.min(bytes.length, frame.length - frame.taken)
    const piece = unmasked(bytes.subarray(0, size), frame)
    frame.taken += size
    if (frame.opcode >= opcodes.close) frame.control.push(piece)
    else if (!this.push(piece)) this.#socket.pause()
    if (frame.taken === frame.length) this.#complete(frame)
    return bytes.subarray(size)
  }

  #complete({ opcode, control }: Frame): void {
    this.#frame = undefined
    if (opcode === opcodes.ping) this.#send(opcodes.pong, Buffer.concat(control))
    if (opcode !== opcodes.close) return
    this.#hasHeardClose = true
    this.#sayClose(closed.normally, '')
    this.push(null)
    this.end()
    this.#socket.end()
  }

  #refuse(code: number, why: string): undefined {
    this.#sayClose(code, why)
    this.destroy(new Error(`the WebSocket broke its protocol: ${why}`))
  }

  #sayClose(code: number, reason: string): void {
    if (this.#hasSaidClose) return
    this.#hasSaidClose = true
    const bytes = Buffer.alloc(2)
    bytes.writeUInt16BE(code)
    // Cutting inside a character would make the whole frame a mistake.
    const text = Buffer.from(
      Buffer.from(reason)
        .subarray(0, controlBytes - 5)
        .toString('utf8')
        .replace(/\u{fffd}$/u, ''),
    )
    this.#send(opcodes.close, Buffer.concat([bytes, text]))
  }

  #send(opcode: number, payload: Uint8Array, done?: () => void): void {
    if (!this.#socket.writable) return done?.()
    const mask = this.#isClient ? systemRandom.bytes(4) : undefined
    this.#socket.cork()
    this.#socket.write(headOf(opcode, payload.length, mask))
    this.#socket.write(mask ? masked(payload, mask) : payload, () => done?.())
    this.#socket.uncork()
  }
}

function headOf(opcode: number, length: number, mask: Uint8Array | undefined): Buffer {
  const flag = mask ? 0x80 : 0
  const head = length < 126 ? Buffer.alloc(2) : length < 65_536 ? Buffer.alloc(4) : Buffer.alloc(10)
  head[0] = 0x80 | opcode
  head[1] = flag | (length < 126 ? length : length < 65_536 ? 126 : 127)
  if (head.length === 4) head.writeUInt16BE(length, 2)
  if (head.length === 10) head.writeBigUInt64BE(BigInt(length), 2)
  return mask ? Buffer.concat([head, mask]) : head
}

function masked(payload: Uint8Array, mask: Uint8Array): Buffer {
  return Buffer.from(payload.map((byte, at) => byte ^ (mask[at & 3] ?? 0)))
}

/** In place: the bytes are the socket's own, and nobody else reads them. */
function unmasked(piece: Buffer, { mask, taken }: Frame): Buffer {
  if (mask) for (let at = 0; at < piece.length; at += 1) piece[at] = (piece[at] ?? 0) ^ (mask[(taken + at) & 3] ?? 0)
  return piece
}

function ended(socket: Duplex): AbortSignal {
  const over = new AbortController()
  if (socket.destroyed) over.abort()
  else socket.once('close', () => over.abort())
  return over.signal
}

/** What a server answers to the client's key. */
export function acceptOf(key: string): string {
  return createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
}
