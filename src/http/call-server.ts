/**
 * The daemon's side of the frames: each call runs as a request of its own, many at once, and is answered
 * when it is done. Who calls is proven here, for every call anew, by the same code as for HTTP.
 */
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { ApiRequest, Target } from '#rest/dispatch.ts'
import type { Identity } from '#rest/endpoint.ts'
import type { Keep, ReplyFormat, WireReply } from '#rest/reply.ts'
import { callProtocol, type Frame, FrameReader, FrameWriter, frameBytes, frameLimits } from './call-frame.ts'
import { callFrom, givenFrom, type LinkCall, replyHead } from './call-message.ts'
import type { EdgeContext } from './edge.ts'
import { type ApiPlace, placeOf } from './place.ts'
import { afterFailedLogin, identityFrom, noTicket } from './session.ts'

/** Whether the front, and nobody else, asks for frames. */
export function isCallLink({ headers, method }: IncomingMessage, { origin }: Pick<EdgeContext, 'origin'>): boolean {
  return origin.kind === 'front' && method === 'GET' && headers.upgrade === callProtocol
}

/** Takes the connection over until it ends. */
export function serveCalls(socket: Duplex, begun: Buffer, context: EdgeContext): void {
  const calls = new Calls(socket, context)
  const reader = new FrameReader(frameLimits.callBytes, (frame) => calls.take(frame))
  const read = (part: Buffer) => {
    try {
      reader.push(part)
    } catch (error) {
      context.log.error('the front sent something else than calls', { error })
      socket.destroy()
    }
  }
  socket.on('error', () => socket.destroy())
  socket.once('close', () => calls.end())
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${callProtocol}\r\n\r\n`)
  read(begun)
  socket.on('data', read)
}

const rememberedMs = 5_000

/**
 * The calls of one connection. Any number may run, because some wait for long and none may keep another; but
 * none begins while the replies of others have yet to leave, or many clients that ask for much and go away
 * would fill the memory of the daemon.
 */
class Calls {
  readonly #context: EdgeContext
  readonly #writer: FrameWriter
  readonly #waiting = new Map<number, LinkCall>()
  readonly #running = new Map<number, CallRequest>()
  /** Replies the front may be giving again, by the number of their call; the oldest first. */
  readonly #kept = new Map<number, Keep>()
  #begunInTurn = 0

  constructor(socket: Duplex, context: EdgeContext) {
    this.#context = context
    this.#writer = new FrameWriter(socket, () => this.#begin())
  }

  /** @throws Error when the frame is no call */
  take({ kind, id, head }: Frame): void {
    if (kind === 'call') {
      this.#waiting.set(id, callFrom(head))
      this.#begin()
    } else if (kind === 'given') {
      const { times, remoteAddress } = givenFrom(head)
      this.#kept.get(id)?.given(times, remoteAddress)
    } else if (!this.#waiting.delete(id)) this.#leave(id)
  }

  end(): void {
    this.#waiting.clear()
    for (const id of this.#running.keys()) this.#leave(id)
  }

  #leave(id: number): void {
    this.#running.get(id)?.leave()
    this.#running.delete(id)
  }

  /** Only so many in one turn: what their replies hold is known when it is over. */
  #begin(): void {
    for (const [id, call] of this.#waiting) {
      // Called again when there is room, and when the next turn comes.
      if (this.#writer.heldBytes > frameLimits.heldBytes || this.#begunInTurn === frameLimits.callsPerTurn) return
      if (this.#begunInTurn === 0) setImmediate(() => this.#nextTurn())
      this.#begunInTurn += 1
      this.#waiting.delete(id)
      void this.#run(id, call)
    }
  }

  #nextTurn(): void {
    this.#begunInTurn = 0
    this.#begin()
  }

  async #run(id: number, call: LinkCall): Promise<void> {
    const request = requestOf(call, this.#context)
    if (request instanceof CallRequest && this.#context.dispatcher.isStreamed(request.method, request.path)) {
      return this.#writer.send(frameBytes('reply', id, { isElsewhere: true }, ''))
    }
    if (request instanceof CallRequest) this.#running.set(id, request)
    const reply = request instanceof CallRequest ? await answer(request, this.#context) : request
    const isAwaited = this.#running.delete(id) || !(request instanceof CallRequest)
    if (!isAwaited) return
    if (reply.keep) this.#remember(id, reply.keep)
    this.#writer.send(frameBytes('reply', id, replyHead(reply, id), reply.body))
  }

  /** The front speaks of a reply once a second, and last a second after it was of no more use. */
  #remember(id: number, keep: Keep): void {
    const overSince = this.#context.clock.now() - rememberedMs
    for (const [old, { until }] of this.#kept) {
      if (until > overSince) break
      this.#kept.delete(old)
    }
    this.#kept.set(id, keep)
  }
}

/** The request, or the reply where nobody needs to know who asks. */
function requestOf(call: LinkCall, context: EdgeContext): CallRequest | WireReply {
  const place = placeOf(call.method, call.target, context.documents)
  return 'status' in place ? place : new CallRequest(call, place, context)
}

/** Never rejects: neither does the dispatcher. */
async function answer(request: CallRequest, context: EdgeContext): Promise<WireReply> {
  const startedMs = context.clock.monotonic()
  const reply = await context.dispatcher.handle(request)
  if (reply.kind === 'unauthenticated') await afterFailedLogin(startedMs, context)
  return reply
}

/** One call as the dispatcher sees it. */
class CallRequest implements ApiRequest {
  readonly method: string
  readonly path: string
  readonly query: string
  readonly format: ReplyFormat
  readonly remoteAddress: string
  readonly #call: LinkCall
  readonly #context: EdgeContext
  #isGone = false
  #gone: AbortController | undefined

  constructor(call: LinkCall, { path, query, format }: ApiPlace, context: EdgeContext) {
    this.method = call.method
    this.path = path
    this.query = query
    this.format = format
    this.remoteAddress = call.remoteAddress
    this.#call = call
    this.#context = context
  }

  /** Made when first asked for: most handlers are done before anybody could go away. */
  get signal(): AbortSignal {
    this.#gone ??= new AbortController()
    if (this.#isGone) this.#gone.abort()
    return this.#gone.signal
  }

  /** The client has gone. */
  leave(): void {
    this.#isGone = true
    this.#gone?.abort()
  }

  readonly authenticate = async ({ isUpload }: Target): Promise<Identity> => {
    const { headers, method } = this.#call
    const who = await identityFrom({ headers, method, isUpload }, this.#context.authenticator)
    if (!who) throw noTicket()
    return who
  }

  /** Requests with a body travel as HTTP. */
  readonly body = () => Promise.resolve({})
}
