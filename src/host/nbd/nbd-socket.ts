/**
 * A stream socket read in exact amounts: the next `n` bytes, or as many as fill a buffer. Data is taken
 * from the kernel only when somebody asks for it, so a server that sends without being asked fills its
 * own buffers and not our memory.
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

/** As much as a server has ready at once. */
const gulpBytes = 256 * KiB

interface Wanted {
  readonly into: Uint8Array
  done: number
}

export class ExactSocket {
  readonly #socket: Socket
  /** What has come and nobody has taken yet: a part of the one buffer the kernel fills. */
  #rest: Buffer = Buffer.alloc(0)
  /** Where what comes goes. Nothing is taken from the kernel without it. */
  #wanted: Wanted | undefined
  #ended: Fault | undefined
  #wake: (() => void) | undefined

  private constructor({ path, timeoutMs, signal }: SocketOptions) {
    const callback = (count: number, { buffer }: Uint8Array) => this.#come(Buffer.from(buffer, 0, count))
    // A stream would make a buffer for every 64 KiB, and let go of it.
    const socket = connect({ path, onread: { buffer: Buffer.allocUnsafeSlow(gulpBytes), callback } })
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
    await this.fill(bytes)
    return bytes
  }

  /** Fills the buffer with what comes next; one call after another. */
  async fill(into: Uint8Array): Promise<void> {
    const wanted: Wanted = { into, done: 0 }
    this.#pour(wanted)
    this.#wanted = wanted
    try {
      while (wanted.done < into.length) {
        if (this.#ended) throw this.#ended
        this.#socket.resume()
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
    } finally {
      this.#wanted = undefined
    }
  }

  /** @returns whether more is to come now */
  #come(bytes: Buffer): boolean {
    this.#rest = bytes
    if (!this.#wanted) return false
    this.#pour(this.#wanted)
    if (this.#wanted.done < this.#wanted.into.length) return true
    this.#wake?.()
    return false
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

  /** Ends the connection; every wait fails with this fault, or with the first one given. */
  destroy(fault: Fault): void {
    this.#ended ??= fault
    this.#socket.destroy()
    this.#wake?.()
  }

  /** Says the last word and closes without waiting for an answer. */
  finish(bytes: Uint8Array, fault: Fault): void {
    this.#ended ??= fault
    this.#socket.end(bytes, () => this.#socket.destroy())
    this.#wake?.()
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
