/**
 * QMP: the control connection of one running QEMU.
 *
 * Commands carry ids, so replies may come late or interleaved with events and still find their command.
 * A command that ran into its limit stays answered by nobody: its late reply is dropped by id. When QEMU
 * goes away every open command and every wait fails at once with kind `unavailable`.
 *
 * QEMU serves one client per monitor socket; a second one is accepted and hears nothing until the first
 * leaves. Connections are therefore kept short, and connecting has a limit that says so.
 */
import { basename, dirname } from 'node:path'
import { Fault } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import { passing } from '#base/trace.ts'
import { LineSocket } from '../programs/json-lines.ts'
import type { Listener } from '../programs/unix-peer.ts'

export interface QmpEvent {
  readonly name: string
  readonly data: Readonly<Record<string, unknown>>
  /** QEMU's own clock, microseconds since 1970. */
  readonly timestampUs: number
}

export interface QmpOptions {
  readonly timeoutMs?: number
  readonly signal?: AbortSignal | undefined
  readonly replyBytes?: number
}

export interface QmpConnectOptions extends QmpOptions {
  /** The QEMU that must be found there. */
  readonly listener: Listener
}

export interface ExecuteOptions extends QmpOptions {
  /** Handed over with the command (`getfd`, `add-fd`); the caller closes its own. */
  readonly descriptor?: number
}

interface Pending {
  readonly command: string
  readonly resolve: (value: unknown) => void
  readonly reject: (fault: Fault) => void
}

/** What QEMU said about a command it refused; `cause` of the fault. */
export interface QmpError {
  readonly class: string
  readonly desc: string
}

type Message = Readonly<Record<string, unknown>>

export class QmpClient implements AsyncDisposable {
  readonly #path: string
  readonly #pending = new Map<number, Pending>()
  readonly #listeners = new Set<(event: QmpEvent) => void>()
  readonly #endListeners = new Set<(fault: Fault) => void>()
  readonly #greeting = Promise.withResolvers<void>()
  #line: LineSocket | undefined
  #lastId = 0
  #ended: Fault | undefined

  /** `guests/100/qmp.sock` */
  get #guest(): string {
    return basename(dirname(this.#path))
  }

  private constructor(path: string) {
    this.#path = path
    this.#greeting.promise.catch(() => {}) // Heard by connect(), or by nobody when that failed first.
  }

  /**
   * Connects, waits for the greeting and enables commands.
   * @throws Fault `unavailable` when no QEMU listens there, `denied` when somebody else does, `timeout` when it
   *   does not greet: another client may hold the monitor.
   */
  static async connect(path: string, options: QmpConnectOptions): Promise<QmpClient> {
    const { timeoutMs = limits.qmp.timeoutMs, signal, replyBytes = limits.qmp.replyBytes, listener } = options
    const client = new QmpClient(path)
    client.#line = await LineSocket.open({
      path,
      who: 'QEMU',
      listener,
      lineBytes: replyBytes,
      timeoutMs,
      signal,
      onLine: (line) => client.#onLine(line),
      onEnd: (reason) => client.#onEnd(reason),
    })
    try {
      await within(client.#greeting.promise, timeoutMs, signal, () => client.#silent(timeoutMs))
      await client.execute('qmp_capabilities', {}, { timeoutMs, signal })
      return client
    } catch (fault) {
      await client[Symbol.asyncDispose]()
      throw fault
    }
  }

  /**
   * Runs a command and returns what QEMU returned; the caller names its shape.
   * @throws Fault `failed` with QEMU's own words (`cause` is a QmpError), `unavailable` when QEMU is gone
   *   or goes, `timeout`, `aborted`.
   */
  async execute<T = unknown>(command: string, args: object = {}, options: ExecuteOptions = {}): Promise<T> {
    const { timeoutMs = limits.qmp.timeoutMs, signal, descriptor } = options
    if (this.#ended) throw this.#ended
    if (signal?.aborted) throw new Fault('aborted', `QMP command '${command}': interrupted`, { cause: signal.reason })
    const id = ++this.#lastId
    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    this.#pending.set(id, { command, resolve, reject })
    try {
      // QEMU reads what it is asked byte by byte, which is most of what a short question costs it.
      const isBare = Object.keys(args).length === 0
      const line = `${JSON.stringify({ execute: command, arguments: isBare ? undefined : args, id })}\n`
      if (descriptor === undefined) this.#line?.send(line)
      else this.#line?.sendWithDescriptor(line, descriptor)
      const late = () => new Fault('timeout', `QMP command '${command}': no answer within ${timeoutMs / 1000} s`)
      return (await passing('qmp', this.#guest, () => within(promise, timeoutMs, signal, late))) as T
    } finally {
      this.#pending.delete(id)
    }
  }

  /** Calls `listener` with every event from now on. Returns what ends that. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /**
   * The next event of that name that `match` accepts. Listening begins with the call, so ask before the
   * command that causes the event; the promise may be left alone if that command fails.
   * @throws Fault `timeout`, `unavailable` when QEMU goes away first, `aborted`.
   */
  waitForEvent(
    name: string,
    match: (event: QmpEvent) => boolean = () => true,
    timeoutMs: number = limits.qmp.timeoutMs,
    signal?: AbortSignal,
  ): Promise<QmpEvent> {
    const { promise, resolve, reject } = Promise.withResolvers<QmpEvent>()
    const stop = this.onEvent((event) => {
      if (event.name === name && match(event)) resolve(event)
    })
    if (this.#ended) reject(this.#ended)
    this.#endListeners.add(reject)
    const late = () => new Fault('timeout', `event ${name} of QEMU: not within ${timeoutMs / 1000} s`)
    const waited = within(promise, timeoutMs, signal, late).finally(() => {
      stop()
      this.#endListeners.delete(reject)
    })
    waited.catch(() => {})
    return waited
  }

  /** Calls `listener` once when the connection ends, at once when it has ended. */
  onEnd(listener: (reason: Fault) => void): void {
    if (this.#ended) listener(this.#ended)
    else this.#endListeners.add(listener)
  }

  get isOpen(): boolean {
    return this.#ended === undefined
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#line?.close(new Fault('aborted', 'the connection to QEMU was closed by this side'))
  }

  #onLine(line: string): void {
    const message = parseObject(line)
    if (message === undefined) {
      this.#line?.close(new Fault('unavailable', `what answers at '${this.#path}' does not speak QMP`))
    } else if ('QMP' in message) {
      this.#greeting.resolve()
    } else if (typeof message.event === 'string') {
      const event = toEvent(message.event, message)
      for (const listener of this.#listeners) listener(event)
    } else {
      this.#onReply(message)
    }
  }

  #onReply(message: Message): void {
    const pending = this.#pending.get(Number(message.id))
    if (!pending) return
    if ('return' in message) return pending.resolve(message.return)
    const error = asQmpError(message.error)
    const fault = new Fault('failed', `QMP command '${pending.command}' failed - ${error.desc}`, { cause: error })
    pending.reject(fault)
  }

  #onEnd(reason: Fault): void {
    this.#ended = reason
    this.#greeting.reject(reason)
    for (const { reject } of this.#pending.values()) reject(reason)
    for (const listener of this.#endListeners) listener(reason)
    this.#endListeners.clear()
    this.#listeners.clear()
  }

  #silent(timeoutMs: number): Fault {
    return new Fault('timeout', `QEMU at '${this.#path}' did not greet within ${timeoutMs / 1000} s`, {
      remedy: 'Another program may hold this monitor: QEMU serves one at a time.',
    })
  }
}

/** The document of a line when it is an object, else nothing. */
export function parseObject(line: string): Message | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : undefined
  } catch (cause) {
    if (cause instanceof SyntaxError) return undefined
    throw cause
  }
}

/** Settles with `promise`, or rejects with `late()` after `timeoutMs`, or with kind `aborted`. */
export async function within<T>(
  promise: Promise<T>,
  timeoutMs: number,
  signal: AbortSignal | undefined,
  late: () => Fault,
): Promise<T> {
  const limit = Promise.withResolvers<never>()
  const timer = setTimeout(() => limit.reject(late()), timeoutMs)
  const onAbort = () => limit.reject(new Fault('aborted', 'interrupted', { cause: signal?.reason }))
  signal?.addEventListener('abort', onAbort)
  if (signal?.aborted) onAbort()
  try {
    return await Promise.race([promise, limit.promise])
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', onAbort)
  }
}

/** QEMU's and the agent's errors have the same shape. */
export function asQmpError(error: unknown): QmpError {
  const has = typeof error === 'object' && error !== null
  return {
    class: has && 'class' in error && typeof error.class === 'string' ? error.class : 'GenericError',
    desc: has && 'desc' in error && typeof error.desc === 'string' ? error.desc : 'it did not say why',
  }
}

function toEvent(name: string, message: Message): QmpEvent {
  const { data, timestamp } = message
  const at = typeof timestamp === 'object' && timestamp !== null ? timestamp : {}
  const number = (key: string) => Number(Reflect.get(at, key) ?? 0)
  return {
    name,
    data: typeof data === 'object' && data !== null ? { ...data } : {},
    timestampUs: number('seconds') * 1_000_000 + number('microseconds'),
  }
}
