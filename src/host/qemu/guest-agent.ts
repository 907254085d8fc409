/**
 * The QEMU guest agent, spoken to through the guest's virtio-serial port.
 *
 * The port is a wire without ends: nobody hangs up when the agent restarts, and what an earlier client
 * left half said or unread comes to the next one. So before the first command, and again after any that
 * got no answer, the client sends `guest-sync` with a random id and drops everything until that id comes
 * back. A 0xFF byte goes first: it makes the agent forget a half line it may hold. The agent answers that
 * byte with a parse error of its own, which is dropped like the rest; whoever takes it for the answer to
 * the first command is one reply behind for good.
 *
 * One command is on the wire at a time, for older agents do not repeat ids. The guest is not trusted:
 * a reply has a bound, every call has a deadline.
 */
import { Fault, isFault } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import { type Random, systemRandom } from '#base/random.ts'
import { LineSocket } from '../programs/json-lines.ts'
import type { Listener } from '../programs/unix-peer.ts'
import { asQmpError, parseObject, within } from './qmp.ts'

export interface AgentOptions {
  /** Most a call may take, synchronising included. */
  readonly timeoutMs?: number
  readonly signal?: AbortSignal | undefined
}

export interface AgentConnectOptions extends AgentOptions {
  /** The QEMU that must be found at the near end of the port. */
  readonly listener: Listener
  readonly replyBytes?: number
  readonly random?: Random
}

type Reply = Readonly<Record<string, unknown>>

/** What waits for the next line. `accept` says whether that line was what it waited for. */
interface Waiting {
  readonly accept: (reply: Reply | undefined) => void
  readonly reject: (reason: Fault) => void
}

const FORGET = Uint8Array.of(0xff)
/** An agent that is up answers within milliseconds, in an emulated guest under load within a second. */
const SYNC_MS = 3_000
const ASK_AGAIN_MS = 500

export class AgentClient implements AsyncDisposable {
  readonly #path: string
  readonly #options: AgentConnectOptions
  #line: LineSocket | undefined
  #inSync = false
  #closed = false
  #waiting: Waiting | undefined
  #queue: Promise<unknown> = Promise.resolve()

  private constructor(path: string, options: AgentConnectOptions) {
    this.#path = path
    this.#options = options
  }

  /**
   * Connects and makes sure that an agent answers.
   * @throws Fault `unavailable` 'QEMU guest agent is not running', `aborted`.
   */
  static async connect(path: string, options: AgentConnectOptions): Promise<AgentClient> {
    const client = new AgentClient(path, options)
    try {
      await client.#synchronise(options.timeoutMs ?? SYNC_MS, options.signal)
      return client
    } catch (fault) {
      await client[Symbol.asyncDispose]()
      throw fault
    }
  }

  /**
   * Runs a command in the guest and returns what the agent returned; the caller names its shape.
   * Reconnects and synchronises by itself where needed.
   * @throws Fault `failed` with the agent's own words (`cause` is a QmpError), `unavailable` when no agent
   *   answers, `timeout` when it took the command and did not answer in time, `exhausted` for a reply
   *   beyond the bound, `aborted`.
   */
  execute<T = unknown>(command: string, args: object = {}, options: AgentOptions = {}): Promise<T> {
    return this.#inTurn(async () => {
      const { timeoutMs = limits.agent.timeoutMs, signal } = options
      const started = performance.now()
      await this.#synchronise(Math.min(timeoutMs, SYNC_MS), signal)
      const leftMs = Math.max(1, timeoutMs - (performance.now() - started))
      const reply = await this.#ask(command, args, leftMs, signal)
      if (!('return' in reply)) throw refusal(reply)
      return reply.return as T
    })
  }

  /**
   * Says a command that is not answered when it succeeds (`guest-shutdown`, `guest-suspend-ram`), and
   * gives the agent `refusalMs` to object.
   * @throws Fault `failed` with the agent's words when it refuses, `unavailable`.
   */
  tell(command: string, args: object = {}, refusalMs = 500): Promise<void> {
    return this.#inTurn(async () => {
      await this.#synchronise(SYNC_MS, undefined)
      const reply = await this.#ask(command, args, refusalMs, undefined).catch((fault: unknown) => {
        // Silence, or a port that closes because the guest is gone already, is what success looks like.
        if (isFault(fault, 'timeout') || isFault(fault, 'unavailable')) return undefined
        throw fault
      })
      if (reply && 'error' in reply) throw refusal(reply)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    this.#line?.close(new Fault('aborted', 'the connection to the guest agent was closed by this side'))
  }

  /** Runs `act` when all acts asked for earlier are over, however they ended. */
  #inTurn<T>(act: () => Promise<T>): Promise<T> {
    const turn = this.#queue.then(act)
    this.#queue = turn.catch(() => {})
    return turn
  }

  async #synchronise(timeoutMs: number, signal: AbortSignal | undefined): Promise<void> {
    if (this.#closed) throw new Fault('aborted', 'the connection to the guest agent was closed by this side')
    if (this.#inSync && this.#line?.isOpen) return
    try {
      const line = this.#line?.isOpen ? this.#line : await this.#open(timeoutMs, signal)
      await this.#untilSync(line, timeoutMs, signal)
      this.#inSync = true
    } catch (fault) {
      if (isFault(fault, 'aborted')) throw fault
      throw new Fault('unavailable', 'QEMU guest agent is not running', { cause: fault })
    }
  }

  /**
   * Asks again and again: what is sent before the agent opens its side of the port is lost. Answers come in
   * order, so once the last question is answered no answer to an earlier one can follow.
   */
  async #untilSync(line: LineSocket, timeoutMs: number, signal: AbortSignal | undefined): Promise<void> {
    for (let leftMs = timeoutMs; ; leftMs -= ASK_AGAIN_MS) {
      const id = Buffer.from((this.#options.random ?? systemRandom).bytes(6)).readUIntBE(0, 6)
      line.send(FORGET)
      line.send(`${JSON.stringify({ execute: 'guest-sync', arguments: { id } })}\n`)
      try {
        await this.#nextReply((reply) => reply?.return === id, Math.min(leftMs, ASK_AGAIN_MS), signal, 'guest-sync')
        return
      } catch (fault) {
        if (!isFault(fault, 'timeout') || leftMs <= ASK_AGAIN_MS) throw fault
      }
    }
  }

  async #open(timeoutMs: number, signal: AbortSignal | undefined): Promise<LineSocket> {
    this.#line = await LineSocket.open({
      path: this.#path,
      who: 'the guest agent',
      listener: this.#options.listener,
      lineBytes: this.#options.replyBytes ?? limits.agent.replyBytes,
      timeoutMs,
      signal,
      onLine: (line) => this.#waiting?.accept(parseObject(line)),
      onEnd: (reason) => this.#waiting?.reject(reason),
    })
    return this.#line
  }

  async #ask(command: string, args: object, timeoutMs: number, signal: AbortSignal | undefined): Promise<Reply> {
    // Until the answer is here, an answer may still come to somebody who does not expect it.
    this.#inSync = false
    this.#line?.send(`${JSON.stringify({ execute: command, arguments: args })}\n`)
    const reply = await this.#nextReply(() => true, timeoutMs, signal, command)
    if (reply === undefined) throw new Fault('failed', `guest agent command '${command}': the answer is no JSON`)
    this.#inSync = true
    return reply
  }

  /** The next line `matches` accepts; `undefined` stands for a line that is no JSON object. */
  async #nextReply(
    matches: (reply: Reply | undefined) => boolean,
    timeoutMs: number,
    signal: AbortSignal | undefined,
    command: string,
  ): Promise<Reply | undefined> {
    const { promise, resolve, reject } = Promise.withResolvers<Reply | undefined>()
    this.#waiting = { accept: (reply) => matches(reply) && resolve(reply), reject }
    const late = () =>
      new Fault('timeout', `guest agent command '${command}': no answer within ${(timeoutMs / 1000).toFixed(1)} s`)
    try {
      return await within(promise, timeoutMs, signal, late)
    } finally {
      this.#waiting = undefined
    }
  }
}

function refusal(reply: Reply): Fault {
  const error = asQmpError(reply.error)
  return new Fault('failed', error.desc, { cause: error })
}
