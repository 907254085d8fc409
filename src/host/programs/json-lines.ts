/**
 * A unix socket that carries one JSON document per line, both ways: what QMP and the guest agent share.
 *
 * The peer is not trusted to behave: it may send half a line and stop, send a line without end, or go
 * away in mid-sentence. A line has a bound; past it the connection is closed rather than the memory
 * filled. What a line means, and whether nonsense is an error, is for the two clients to say.
 */
import { connect, type Socket } from 'node:net'
import { Fault } from '#base/fault.ts'
import { sendWithDescriptor } from './descriptor-passing.ts'
import { codeOf } from '../files.ts'
import { type Listener, requireListener } from './unix-peer.ts'

export interface LineHandlers {
  readonly onLine: (line: string) => void
  /** Called once, when the connection ends for whatever reason. */
  readonly onEnd: (reason: Fault) => void
}

export interface LineOptions extends LineHandlers {
  readonly path: string
  /** Who is at the other end, for messages: `QEMU`, `the guest agent`. */
  readonly who: string
  /** Who must be found there: nothing is sent to, and nothing heard from, anybody else. */
  readonly listener: Listener
  readonly lineBytes: number
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
}

export class LineSocket {
  readonly #socket: Socket
  readonly #options: LineOptions
  #parts: Buffer[] = []
  #size = 0
  #reason: Fault | undefined

  private constructor(socket: Socket, options: LineOptions) {
    this.#socket = socket
    this.#options = options
    socket.on('data', (part: Buffer) => this.#take(part))
    socket.on('error', (cause) => this.#end(gone(options, cause)))
    socket.on('close', () => this.#end(gone(options)))
  }

  /** @throws Fault `unavailable` when nobody listens, `denied` when somebody else does, `timeout`, `aborted`. */
  static async open(options: LineOptions): Promise<LineSocket> {
    const { path, who, listener, timeoutMs, signal } = options
    if (signal?.aborted) throw new Fault('aborted', `connecting to ${who}: interrupted`)
    const socket = connect(path)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const timer = setTimeout(
      () => reject(new Fault('timeout', `${who} did not accept on '${path}' within ${timeoutMs / 1000} s`)),
      timeoutMs,
    )
    const onAbort = () => reject(new Fault('aborted', `connecting to ${who}: interrupted`))
    signal?.addEventListener('abort', onAbort)
    socket.once('connect', resolve)
    socket.once('error', (cause) => reject(gone(options, cause)))
    try {
      await promise
      requireListener(socket, path, listener)
      return new LineSocket(socket, options)
    } catch (fault) {
      socket.destroy()
      throw fault
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
  }

  get isOpen(): boolean {
    return this.#reason === undefined
  }

  send(text: string | Uint8Array): void {
    if (this.isOpen) this.#socket.write(text)
  }

  /** As `send`, and hands over an open descriptor. @throws Fault `unavailable` */
  sendWithDescriptor(text: string, descriptor: number): void {
    if (this.isOpen) sendWithDescriptor(this.#socket, text, descriptor)
  }

  /** Ends the connection; `onEnd` hears `reason`. */
  close(reason: Fault): void {
    this.#end(reason)
  }

  #take(part: Buffer): void {
    let rest = part
    for (let at = rest.indexOf(10); at >= 0 && this.isOpen; at = rest.indexOf(10)) {
      const line = Buffer.concat([...this.#parts, rest.subarray(0, at)]).toString('utf8')
      rest = rest.subarray(at + 1)
      this.#parts = []
      this.#size = 0
      if (line.trim() !== '') this.#options.onLine(line)
    }
    this.#parts.push(rest)
    this.#size += rest.length
    if (this.#size > this.#options.lineBytes) {
      this.#end(
        new Fault('exhausted', `${this.#options.who} sent a line of more than ${this.#options.lineBytes} bytes`),
      )
    }
  }

  #end(reason: Fault): void {
    if (this.#reason !== undefined) return
    this.#reason = reason
    this.#parts = []
    this.#socket.destroy()
    this.#options.onEnd(reason)
  }
}

function gone({ who, path }: LineOptions, cause?: unknown): Fault {
  const why = cause === undefined ? 'closed the connection' : `is not there (${codeOf(cause) ?? 'unknown reason'})`
  return new Fault('unavailable', `${who} at '${path}' ${why}`, { cause })
}
