/**
 * Carries requests from the front to the daemon's unix socket and the replies back: one without a body as a
 * call on the link (`call-link.ts`), any other as HTTP, a stream in both directions with back-pressure, on
 * connections that are kept and used again.
 */
import type { Agent, ClientRequest, IncomingMessage, ServerResponse } from 'node:http'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { faultReply, type WireReply } from '#rest/reply.ts'
import { bounds } from './bounds.ts'
import { type CallLink, createCallLink, unreachable } from './call-link.ts'
import { proofIn } from './call-message.ts'
import { endGently } from './linger.ts'
import { nodeHttp } from './node-http.ts'
import { KeptReplies } from './kept-replies.ts'
import { readied, send } from './send.ts'
import { clientHeader, ownPrefix, traceHeader } from './wire.ts'

export interface Proxy {
  /** Sends the request on as it is. */
  readonly forward: (request: IncomingMessage, response: ServerResponse) => void
  /**
   * Asks the daemon in the name of this request, with another body and headers of the front's own.
   * @throws Fault `unavailable`
   */
  readonly ask: (request: IncomingMessage, own: Readonly<Record<string, string>>, body: string) => Promise<WireReply>
  /** A reply of the front itself, or one the daemon gave to `ask`. */
  readonly answer: (request: IncomingMessage, response: ServerResponse, reply: WireReply) => Promise<void>
  readonly close: () => void
}

/** Meant for one connection only, or for the front alone. */
const notForwarded: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'expect',
])

/** @param mark of the store; without it no reply is kept */
export function createProxy(daemonSocket: string, clock: Clock, mark?: () => string): Proxy {
  const link = createCallLink(daemonSocket, () => kept?.clear())
  const given = (id: number, times: number, remoteAddress: string) => link.given(id, { times, remoteAddress })
  const kept = mark && new KeptReplies({ clock, mark, given })
  const agent = new nodeHttp.Agent({ keepAlive: true, maxFreeSockets: 32 })
  const place = { socketPath: daemonSocket, agent, setHost: false, timeout: bounds.replyMs }
  return {
    forward(request, response) {
      if (isCall(request) && !isFollowed(request)) {
        if (kept?.give(request, response) !== true) carryCall(request, response, { link, clock, kept, place })
      } else forward(request, response, place, clock, true)
    },
    ask: (request, own, body) => ask(request, own, body, place),
    answer: (request, response, reply) => send(request, response, reply, { clock, isLast: true }),
    close() {
      agent.destroy()
      link.close()
    },
  }
}

/** Told how long each part had it: by headers, which frames do not carry; and never given a kept reply. */
function isFollowed({ headers }: IncomingMessage): boolean {
  return headers[traceHeader] !== undefined
}

/** What the link takes: that is most requests, and all those that come often. */
function isCall(request: IncomingMessage): boolean {
  return (request.method === 'GET' || request.method === 'DELETE') && !carriesBody(request)
}

interface Carrying {
  readonly link: CallLink
  readonly clock: Clock
  readonly kept: KeptReplies | undefined
  readonly place: Place
}

function carryCall(request: IncomingMessage, response: ServerResponse, { link, clock, kept, place }: Carrying): void {
  const { method = '', url: target = '', headers, socket } = request
  const { remoteAddress = '' } = socket
  const call = { method, target, remoteAddress, headers: proofIn(headers) }
  const giveUp = link.send(call, (answer) => {
    if (response.destroyed) return
    if (!(answer instanceof Fault) && answer.isElsewhere === true) {
      response.removeAllListeners('timeout').setTimeout(0)
      forward(request, response, place, clock, true)
    } else if (answer instanceof Fault) void send(request, response, unanswered(answer), { clock })
    else if (kept === undefined || answer.keep === undefined) void send(request, response, answer, { clock })
    else {
      void readied(request, answer).then((ready) => {
        kept.keep(request, answer, ready)
        return send(request, response, ready, { clock })
      })
    }
  })
  response.once('close', giveUp)
  response.setTimeout(bounds.replyMs, () => {
    giveUp()
    void send(request, response, unanswered(unreachable(new Error('the daemon takes too long'))), { clock })
  })
}

interface Place {
  readonly socketPath: string
  readonly agent: Agent
}

function forward(
  request: IncomingMessage,
  response: ServerResponse,
  place: Place,
  clock: Clock,
  mayRetry: boolean,
): void {
  const arrivedMs = clock.monotonic()
  const own = {
    [clientHeader]: request.socket.remoteAddress ?? '',
    ...(isFollowed(request) ? { [traceHeader]: '1' } : {}),
  }
  const upstream = nodeHttp.request({
    ...place,
    method: request.method,
    path: request.url,
    headers: outgoing(request, own),
  })
  const hasBody = carriesBody(request)
  upstream.on('response', (reply) => {
    if (isFollowed(request)) addTiming(reply.rawHeaders, clock.monotonic() - arrivedMs)
    relay(request, response, upstream, reply, clock)
  })
  upstream.on('timeout', () => upstream.destroy(new Error('the daemon takes too long')))
  upstream.on('error', (cause) => {
    if (response.headersSent || response.destroyed) return void response.destroy()
    // A kept connection may have been closed at the very moment it was used again; nothing was done then.
    if (mayRetry && upstream.reusedSocket && !hasBody && request.method === 'GET') {
      return forward(request, response, place, clock, false)
    }
    void send(request, response, unanswered(unreachable(cause)), { clock, isLast: true })
  })
  response.once('close', () => response.writableFinished || upstream.destroy())
  if (hasBody) request.pipe(upstream)
  else upstream.end()
}

/** Beside what the daemon said: how long the front had it, the daemon included. */
function addTiming(rawHeaders: string[], tookMs: number): void {
  const own = `front;dur=${tookMs.toFixed(3)}`
  const at = rawHeaders.findIndex((name, place) => place % 2 === 0 && name.toLowerCase() === 'server-timing')
  if (at < 0) rawHeaders.push('Server-Timing', own)
  else rawHeaders[at + 1] += `, ${own}`
}

function carriesBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

function relay(
  request: IncomingMessage,
  response: ServerResponse,
  upstream: ClientRequest,
  reply: IncomingMessage,
  clock: Clock,
): void {
  const headers = forwardable(reply.rawHeaders)
  const status = reply.statusCode ?? 500
  const isLast = status >= 400
  if (isLast) headers.push('Connection', 'close')
  response.writeHead(status, reply.statusMessage, headers)
  reply.on('error', () => response.destroy())
  if (!isLast || request.complete) {
    reply.pipe(response)
    return
  }
  // The daemon refused before it had the whole body: stop sending it there, and let the client read why.
  request.unpipe(upstream)
  const parts: Buffer[] = []
  reply.on('data', (part: Buffer) => parts.push(part))
  reply.on('end', () => {
    upstream.destroy()
    endGently(request, response, Buffer.concat(parts), clock)
  })
}

/** Flat pairs without what belongs to one connection. */
function forwardable(rawHeaders: readonly string[]): string[] {
  const headers: string[] = []
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] ?? ''
    const lower = name.toLowerCase()
    if (!notForwarded.has(lower) && !lower.startsWith(ownPrefix)) headers.push(name, rawHeaders[at + 1] ?? '')
  }
  return headers
}

function outgoing(request: IncomingMessage, own: Readonly<Record<string, string>>): string[] {
  const headers = [...forwardable(request.rawHeaders), ...Object.entries(own).flat()]
  const { headers: given } = request
  if (given['transfer-encoding'] !== undefined) headers.push('Transfer-Encoding', 'chunked')
  else if (given['content-length'] === undefined && request.method !== 'GET') headers.push('Content-Length', '0')
  return headers
}

function ask(
  request: IncomingMessage,
  own: Readonly<Record<string, string>>,
  body: string,
  place: Place,
): Promise<WireReply> {
  const kept = forwardable(request.rawHeaders).filter((_, at, all) => !aboutBody(all[at - (at % 2)] ?? ''))
  const facts = { ...own, [clientHeader]: request.socket.remoteAddress ?? '' }
  const headers = [...kept, ...Object.entries(facts).flat(), 'Content-Length', String(Buffer.byteLength(body))]
  return new Promise((resolve, reject) => {
    const fail = (cause: unknown) => reject(new Fault('unavailable', 'the daemon does not answer', { cause }))
    const upstream = nodeHttp.request({ ...place, method: request.method, path: request.url, headers })
    upstream.on('error', fail)
    upstream.on('timeout', () => upstream.destroy(new Error('the daemon takes too long')))
    upstream.on('response', (reply) => {
      const parts: Buffer[] = []
      reply.on('data', (part: Buffer) => parts.push(part))
      reply.on('error', fail)
      reply.on('end', () => {
        resolve({
          status: reply.statusCode ?? 500,
          reason: reply.statusMessage ?? '',
          contentType: reply.headers['content-type'] ?? 'text/plain',
          body: Buffer.concat(parts).toString('utf8'),
        })
      })
    })
    upstream.end(body)
  })
}

/** Headers that tell of a body which `ask` does not send, or of a compression it could not read. */
function aboutBody(name: string): boolean {
  return ['content-length', 'content-type', 'accept-encoding'].includes(name.toLowerCase())
}

/** The status clients know for "the node that should execute this cannot be reached". */
function unanswered(fault: Fault): WireReply {
  return { ...faultReply('json', fault), status: 595 }
}
