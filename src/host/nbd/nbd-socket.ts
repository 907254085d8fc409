/**
 * A stream socket read in exact amounts: first the next `n` bytes whenever somebody asks for them, then, of a talk that has
 * become one of requests and replies, by a receiver that says where the next bytes go. Either way there is a place for
 * whatever is taken from the kernel, so a server that sends without being asked fills its own buffers and not our memory.
 */
import { connect, type Socket } from 'node:net'
import { KiB } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import { type Listener, requireListener } from '../programs/unix-peer.ts'

export interface SocketOptions {
  readonly path: string
  /** Who must be found there. Absent: the socket is in a directory of root's own. */
  readonly listener?: Listener | undefined
  /** Longest silence while an answer is due. */
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
}

/** What is asked for piece by piece is short. */
const gulpBytes = 4 * KiB

/** Takes what comes, each part at its place. */
export interface Receiver {
  /** Where the next bytes go: at least one, memory that stays where it is until `came` or the end of the connection. */
  readonly place: () => Uint8Array
  /** So many bytes have come there. @throws Fault that ends the connection, and nothing else */
  readonly came: (count: number) => void
  /** Nothing will come any more. */
  readonly ended: (fault: Fault) => void
}

interface Wanted {
  readonly into: Uint8Array
  done: number
}

export class ExactSocket {
  readonly #socket: Socket
  /** What the kernel fills as long as there is no receiver. */
  readonly #gulp = Buffer.allocUnsafeSlow(gulpBytes)
  /** What of it has come and nobody has taken yet. */
  #rest: Buffer = this.#gulp.subarray(0, 0)
  /** Where what comes goes. Nothing is taken from the kernel without it, or a receiver. */
  #wanted: Wanted | undefined
  #receiver: Receiver | undefined
  #ended: Fault | undefined
  #wake: (() => void) | undefined

  private constructor({ path, timeoutMs, signal }: SocketOptions) {
    const callback = (count: number, into: Uint8Array) => this.#come(count, into)
    // A stream would make a buffer for every 64 KiB, and let go of it.
    const socket = connect({ path, onread: { buffer: () => this.#receiver?.place() ?? this.#gulp, callback } })
    this.#socket = socket
    socket.on('error', (cause) => this.destroy(gone(path, cause)))
    socket.on('end', () => this.destroy(gone(path)))
    socket.on('close', () => this.destroy(gone(path)))
    socket.setTimeout(timeoutMs, () => {
      if (this.isAnswerDue()) {
        this.destroy(new Fault('timeout', `the NBD server at '${path}' did not answer for ${timeoutMs / 1000} s`))
      }
    })
    const onAbort = () => this.destroy(new Fault('aborted', `reading from the NBD server at '${path}': interrupted`))
    signal?.addEventListener('abort', onAbort)
    socket.once('close', () => signal?.removeEventListener('abort', onAbort))
    if (signal?.aborted) onAbort()
  }

  /** Whether silence is a failure. */
  isAnswerDue: () => boolean = () => true

  /** @throws Fault `unavailable` when nobody listens, `denied` when somebody else does */
  static async open(options: SocketOptions): Promise<ExactSocket> {
    const opened = new ExactSocket(options)
    const socket = opened.#socket
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once('connect', resolve)
        socket.once('close', () => reject(opened.#ended ?? gone(options.path)))
      })
      if (options.listener) requireListener(socket, options.path, options.listener)
      return opened
    } catch (cause) {
      socket.destroy()
      throw cause
    }
  }

  /** The next `count` bytes, valid until more is asked for; the caller has checked that it is a sane number. */
  async take(count: number): Promise<Buffer> {
    if (this.#rest.length >= count) return this.#cut(count)
    const bytes = Buffer.allocUnsafe(count)
    const wanted: Wanted = { into: bytes, done: 0 }
    this.#pour(wanted)
    this.#wanted = wanted
    try {
      while (wanted.done < count) {
        if (this.#ended) throw this.#ended
        this.#socket.resume()
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
    } finally {
      this.#wanted = undefined
    }
    return bytes
  }

  /** From now on whatever comes is this receiver's, beginning with what has come and was not taken. */
  deliverTo(receiver: Receiver): void {
    this.#receiver = receiver
    if (this.#ended) return receiver.ended(this.#ended)
    this.#hand(receiver, this.#rest)
    this.#socket.resume()
  }

  /** @returns whether more is to come now */
  #come(count: number, into: Uint8Array): boolean {
    if (this.#receiver) {
      if (into === this.#gulp) this.#hand(this.#receiver, into.subarray(0, count))
      else this.#came(this.#receiver, count)
      return true
    }
    this.#rest = this.#gulp.subarray(0, count)
    if (!this.#wanted) return false
    this.#pour(this.#wanted)
    if (this.#wanted.done < this.#wanted.into.length) return true
    this.#wake?.()
    return false
  }

  /** @param bytes that came before the kernel knew where the receiver wants them */
  #hand(receiver: Receiver, bytes: Uint8Array): void {
    for (let rest = bytes; rest.length > 0 && !this.#ended;) {
      const place = receiver.place()
      const part = rest.subarray(0, place.length)
      place.set(part)
      this.#came(receiver, part.length)
      rest = rest.subarray(part.length)
    }
  }

  #came(receiver: Receiver, count: number): void {
    try {
      receiver.came(count)
    } catch (cause) {
      if (!(cause instanceof Fault)) throw cause
      this.destroy(cause)
    }
  }

  #pour(wanted: Wanted): void {
    const part = this.#cut(Math.min(this.#rest.length, wanted.into.length - wanted.done))
    wanted.into.set(part, wanted.done)
    wanted.done += part.length
  }

  /** Resolves once the kernel, or a bounded buffer, has taken the bytes. @throws Fault when the connection ended */
  send(bytes: Uint8Array): Promise<void> {
    if (this.#ended) return Promise.reject(this.#ended)
    // What is sent in one go costs the kernel one call.
    if (this.#socket.writableCorked === 0) {
      this.#socket.cork()
      process.nextTick(() => this.#socket.uncork())
    }
    return new Promise((resolve, reject) => {
      this.#socket.write(bytes, (cause) => (cause ? reject(this.#ended ?? gone('its socket', cause)) : resolve()))
    })
  }

  /** Ends the connection; every wait fails with this fault, or with the first one given. Nothing comes after that. */
  destroy(fault: Fault): void {
    const isFirst = this.#ended === undefined
    this.#ended ??= fault
    this.#socket.destroy()
    this.#wake?.()
    if (isFirst) this.#receiver?.ended(this.#ended)
  }

  #cut(count: number): Buffer {
    const part = this.#rest.subarray(0, count)
    this.#rest = this.#rest.subarray(count)
    return part
  }
}

function gone(path: string, cause?: unknown): Fault {
  return new Fault('unavailable', `the NBD server at '${path}' is gone or does not answer`, { cause })
}
