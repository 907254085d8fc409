/**
 * How front and daemon say short things to each other: frames, many calls on one connection.
 *
 *   length of the rest (4) · kind (1) · number of the call (4) · length of the head (4) · head (JSON) · body
 *
 * Numbers are little-endian. A call is a request without a body; requests with one go as HTTP. Rejected: HTTP
 * for all of them, where front and daemon each write and parse the request once more and keep a connection
 * for each; that was two thirds of what a small request cost.
 */
import type { Writable } from 'node:stream'
import { KiB, MiB } from '#base/bytes.ts'

/** What the front asks a connection to `front.sock` to become. */
export const callProtocol = 'hakobune-calls'

export const frameLimits = {
  /** Headers have a limit already; JSON may escape some of their characters. */
  callBytes: 256 * KiB,
  replyBytes: 256 * MiB,
  /** While the front has so much to take, no further call begins. */
  heldBytes: 8 * MiB,
  /** Calls that begin in one turn of the event loop. */
  callsPerTurn: 32,
} as const

export type FrameKind = keyof typeof codes
const codes = { call: 1, cancel: 2, reply: 3, given: 4 } as const

export interface Frame {
  readonly kind: FrameKind
  readonly id: number
  readonly head: unknown
  readonly body: Uint8Array
}

const lengthBytes = 4
/** Kind, number, length of the head. */
const fixedBytes = 9

export function frameBytes(kind: FrameKind, id: number, head: unknown = null, body: string | Uint8Array = ''): Buffer {
  const text = JSON.stringify(head)
  const headBytes = Buffer.byteLength(text)
  const bodyBytes = typeof body === 'string' ? Buffer.byteLength(body) : body.length
  const frame = Buffer.allocUnsafe(lengthBytes + fixedBytes + headBytes + bodyBytes)
  frame.writeUInt32LE(frame.length - lengthBytes, 0)
  frame.writeUInt8(codes[kind], lengthBytes)
  frame.writeUInt32LE(id, lengthBytes + 1)
  frame.writeUInt32LE(headBytes, lengthBytes + 5)
  frame.write(text, lengthBytes + fixedBytes)
  const bodyAt = lengthBytes + fixedBytes + headBytes
  if (typeof body === 'string') frame.write(body, bodyAt)
  else frame.set(body, bodyAt)
  return frame
}

/** @throws Error when the bytes are no frame */
function readFrame(bytes: Buffer): Frame {
  const code = bytes.readUInt8(0)
  const kind = kinds.find((name) => codes[name] === code)
  const headEnd = fixedBytes + bytes.readUInt32LE(5)
  if (kind === undefined || headEnd > bytes.length) throw new Error('this is no frame')
  const head: unknown = JSON.parse(bytes.toString('utf8', fixedBytes, headEnd))
  return { kind, id: bytes.readUInt32LE(1), head, body: bytes.subarray(headEnd) }
}

const kinds = Object.keys(codes) as FrameKind[]

/** Puts frames together from whatever pieces they arrive in. */
export class FrameReader {
  readonly #maximumBytes: number
  readonly #onFrame: (frame: Frame) => void
  #parts: Buffer[] = []
  #heldBytes = 0
  /** With fewer bytes than this there is no whole frame: a large one is not put together again for each piece. */
  #neededBytes = lengthBytes

  constructor(maximumBytes: number, onFrame: (frame: Frame) => void) {
    this.#maximumBytes = maximumBytes
    this.#onFrame = onFrame
  }

  /** @throws Error when the bytes are no frames, or one is too long; the connection is then of no more use */
  push(part: Buffer): void {
    this.#parts.push(part)
    this.#heldBytes += part.length
    if (this.#heldBytes < this.#neededBytes) return
    const bytes = this.#parts.length === 1 ? part : Buffer.concat(this.#parts)
    const rest = bytes.subarray(this.#readAll(bytes))
    this.#parts = rest.length === 0 ? [] : [rest]
    this.#heldBytes = rest.length
  }

  /** @returns where the first unfinished frame begins */
  #readAll(bytes: Buffer): number {
    let at = 0
    for (;;) {
      this.#neededBytes = lengthBytes
      if (bytes.length - at < lengthBytes) return at
      const length = bytes.readUInt32LE(at)
      if (length < fixedBytes || length > this.#maximumBytes) throw new Error(`a frame of ${length} bytes`)
      const end = at + lengthBytes + length
      this.#neededBytes = lengthBytes + length
      if (bytes.length < end) return at
      this.#onFrame(readFrame(bytes.subarray(at + lengthBytes, end)))
      at = end
    }
  }
}

/**
 * Sends frames together, once per turn of the event loop: with many callers the system calls, not the frames,
 * are what costs.
 */
export class FrameWriter {
  readonly #socket: Writable
  readonly #onRoom: () => void
  #waiting: Uint8Array[] = []
  #waitingBytes = 0

  /** @param onRoom called whenever something has left */
  constructor(socket: Writable, onRoom: () => void = () => {}) {
    this.#socket = socket
    this.#onRoom = onRoom
    socket.on('drain', onRoom)
  }

  /** What the other side has yet to take. */
  get heldBytes(): number {
    return this.#waitingBytes + this.#socket.writableLength
  }

  send(frame: Uint8Array): void {
    this.#waitingBytes += frame.length
    if (this.#waiting.push(frame) === 1) setImmediate(() => this.#flush())
  }

  #flush(): void {
    const [frames, bytes] = [this.#waiting, this.#waitingBytes]
    ;[this.#waiting, this.#waitingBytes] = [[], 0]
    if (!this.#socket.writable) return
    // Many small pieces are sooner copied than handed to the kernel one by one; large ones are not.
    if (bytes <= togetherBytes) this.#socket.write(Buffer.concat(frames, bytes))
    else for (const frame of frames) this.#socket.write(frame)
    this.#onRoom()
  }
}

const togetherBytes = 64 * KiB
