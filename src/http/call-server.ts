/**
 * The daemon's side of the frames: each call runs as a request of its own, many at once, and is answered
 * when it is done. Who calls is proven here, for every call anew, by the same code as for HTTP.
 */
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { ApiRequest, Target } from '#rest/dispatch.ts'
import type { Identity } from '#rest/endpoint.ts'
import type { ReplyFormat, WireReply } from '#rest/reply.ts'
import { callProtocol, type Frame, FrameReader, FrameWriter, frameBytes, frameLimits } from './call-frame.ts'
import { callFrom, type LinkCall, replyHead } from './call-message.ts'
import type { EdgeContext } from './edge.ts'
import { type ApiPlace, placeOf } from './place.ts'
import { afterFailedLogin, identityFrom, noTicket } from './session.ts'

/** Whether the front, and nobody else, asks for frames. */
export function isCallLink({ headers, method }: IncomingMessage, { origin }: Pick<EdgeContext, 'origin'>): boolean {
  return origin.kind === 'front' && method === 'GET' && headers.upgrade === callProtocol
}

/** Takes the connection over until it ends. */
export function serveCalls(socket: Duplex, begun: Buffer, context: EdgeContext): void {
  const running = new Map<number, CallRequest>()
  const writer = new FrameWriter((bytes) => socket.writable && socket.write(bytes))
  const reader = new FrameReader(frameLimits.callBytes, ({ kind, id, head }: Frame) => {
    if (kind === 'cancel') return running.get(id)?.leave()
    void answer(callFrom(head), context, (request) => running.set(id, request)).then((reply) => {
      running.delete(id)
      writer.send(frameBytes('reply', id, replyHead(reply), reply.body))
    })
  })
  const take = (part: Buffer) => {
    try {
      reader.push(part)
    } catch (error) {
      context.log.error('the front sent something else than calls', { error })
      socket.destroy()
    }
  }
  socket.on('error', () => socket.destroy())
  socket.once('close', () => running.forEach((request) => request.leave()))
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${callProtocol}\r\n\r\n`)
  take(begun)
  socket.on('data', take)
}

/** Never rejects: neither does the dispatcher. */
async function answer(call: LinkCall, context: EdgeContext, begin: (request: CallRequest) => void): Promise<WireReply> {
  const startedMs = context.clock.monotonic()
  const place = placeOf(call.method, call.target, context.documents)
  if ('status' in place) return place
  const request = new CallRequest(call, place, context)
  begin(request)
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
