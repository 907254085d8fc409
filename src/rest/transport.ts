/**
 * Two ways to carry a request: a unix socket of this machine, and HTTPS. Both keep their connection alive
 * between calls and bound what they read.
 */
import type { ClientRequest, IncomingMessage, RequestOptions } from 'node:http'
import type { Readable } from 'node:stream'
import { Fault, messageOf } from '#base/fault.ts'
import { MiB } from '#base/bytes.ts'
import type { Transport, TransportReply, TransportRequest } from './client.ts'
import { nodeHttp } from './node-http.ts'

const replyBytes = 64 * MiB
const defaultTimeoutMs = 60_000

export interface TransportOptions {
  /** Without a byte for this long, the other side counts as gone. */
  readonly timeoutMs?: number
}

export interface ClosableTransport extends Disposable {
  readonly send: Transport
}

/** Over a unix socket, where the peer knows who calls by uid. */
export function unixTransport(socketPath: string, options: TransportOptions = {}): ClosableTransport {
  const agent = new nodeHttp.Agent({ keepAlive: true })
  const send: Transport = (request) =>
    exchange(request, `the node at ${socketPath}`, options, (settings, onReply) =>
      nodeHttp.request({ ...settings, agent, socketPath }, onReply),
    )
  return { send, [Symbol.dispose]: () => agent.destroy() }
}

export interface HttpsOptions extends TransportOptions {
  /** For instance `https://127.0.0.1:8006`. */
  readonly url: string
  /** Certificate (PEM) to trust beside the public authorities: the node's own. */
  readonly certificate?: string
}

export function httpsTransport({ url, certificate, ...options }: HttpsOptions): ClosableTransport {
  // Loaded here, because the command line speaks to a socket and does without TLS.
  const nodeHttps = process.getBuiltinModule('node:https')
  const { hostname, port } = new URL(url)
  const host = hostname.replace(/^\[|\]$/g, '')
  const agent = new nodeHttps.Agent({ keepAlive: true, ...(certificate === undefined ? {} : { ca: certificate }) })
  const send: Transport = (request) =>
    exchange(request, url, options, (settings, onReply) =>
      nodeHttps.request({ ...settings, agent, host, port: port === '' ? 443 : Number(port) }, onReply),
    )
  return { send, [Symbol.dispose]: () => agent.destroy() }
}

type Start = (settings: RequestOptions, onReply: (reply: IncomingMessage) => void) => ClientRequest

/** One request and its reply. @throws Fault `unavailable`, `timeout`, `aborted` */
function exchange(
  { method, target, headers, body, signal }: TransportRequest,
  peer: string,
  { timeoutMs = defaultTimeoutMs }: TransportOptions,
  start: Start,
): Promise<TransportReply> {
  return new Promise((resolve, reject) => {
    const settings = { method, path: target, headers, timeout: timeoutMs, ...(signal ? { signal } : {}) }
    const request = start(settings, (reply) => {
      readWhole(reply)
        .then(resolve, (cause: unknown) => reject(carryFault(peer, cause, signal)))
        // A body that was given up would keep the connection open for its rest.
        .finally(() => request.writableFinished || request.destroy())
    })
    request.on('timeout', () =>
      request.destroy(new Fault('timeout', `${peer} did not answer within ${timeoutMs / 1000} s`)),
    )
    request.on('error', (cause) => reject(carryFault(peer, cause, signal)))
    if (body === undefined || typeof body === 'string') request.end(body)
    else pour(body, request)
  })
}

/** Whoever refuses an upload says so before it has all of it: what is left is then not sent. */
function pour(body: Readable, request: ClientRequest): void {
  body.on('error', (cause) => request.destroy(cause))
  request.once('response', () => {
    body.unpipe(request)
    body.destroy()
  })
  request.once('close', () => body.destroy())
  body.pipe(request)
}

async function readWhole(reply: IncomingMessage): Promise<TransportReply> {
  const parts: Buffer[] = []
  let size = 0
  for await (const part of reply as AsyncIterable<Buffer>) {
    size += part.length
    if (size > replyBytes) throw new Fault('too-large', `the reply is larger than ${replyBytes} bytes`)
    parts.push(part)
  }
  return {
    status: reply.statusCode ?? 0,
    reason: reply.statusMessage ?? '',
    headers: reply.headers,
    body: Buffer.concat(parts).toString('utf8'),
  }
}

function carryFault(peer: string, cause: unknown, signal: AbortSignal | undefined): Fault {
  if (cause instanceof Fault) return cause
  if (signal?.aborted) return new Fault('aborted', 'interrupted', { cause })
  return new Fault('unavailable', `${peer} cannot be reached: ${messageOf(cause)}`, {
    cause,
    remedy: 'See whether the node is up: `hako doctor`.',
  })
}
