/**
 * A stream socket read in exact amounts: the next `n` bytes, or as many as fill a buffer. Data is taken
 * from the kernel only when somebody asks for it, so a server that sends without being asked fills its
 * own buffers and not our memory.
 */
import { connect, type Socket } from 'node:net'
import { Fault } from '#base/fault.ts'
import { letGo } from '#base/let-go.ts'
import { type Listener, requireListener } from '../programs/unix-peer.ts'

export interface SocketOptions {
  readonly path: string
  /** Who must be found there. Absent: the socket is in a directory of root's own. */
  readonly listener?: Listener | undefined
  /** Longest silence while an answer is due. */
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
}

export class ExactSocket {
  readonly #socket: Socket
  #rest: Buffer = Buffer.alloc(0)
  /** What `#rest` is the end of. */
  #came: Buffer = Buffer.alloc(0)
  #ended: Fault | undefined
  #wake: (() => void) | undefined

  private constructor(socket: Socket, { path, timeoutMs, signal }: SocketOptions) {
    this.#socket = socket
    const wake = () => this.#wake?.()
    socket.on('readable', wake)
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
    const socket = connect(options.path)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    socket.once('connect', resolve)
    socket.once('error', (cause) => reject(gone(options.path, cause)))
    try {
      await promise
      if (options.listener) requireListener(socket, options.path, options.listener)
    } catch (cause) {
      socket.destroy()
      throw cause
    }
    return new ExactSocket(socket, options)
  }

  /** The next `count` bytes; the caller has checked that it is a sane number. */
  async take(count: number): Promise<Buffer> {
    if (this.#rest.length >= count) return this.#cut(count)
    const bytes = Buffer.allocUnsafe(count)
    await this.fill(bytes)
    return bytes
  }

  /** Fills the buffer with what comes next. */
  async fill(into: Uint8Array): Promise<void> {
    let done = 0
    while (done < into.length) {
      if (this.#rest.length === 0) await this.#more()
      const part = this.#cut(Math.min(this.#rest.length, into.length - done))
      into.set(part, done)
      done += part.length
    }
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

  async #more(): Promise<void> {
    for (;;) {
      if (this.#ended) throw this.#ended
      const part = this.#socket.read() as Buffer | null
      if (part) {
        // Whoever took something of it is done with it: they take one thing after another.
        letGo(this.#came)
        this.#came = part
        this.#rest = part
        return
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }
}

function gone(path: string, cause?: unknown): Fault {
  return new Fault('unavailable', `the NBD server at '${path}' is gone or does not answer`, { cause })
}
