/**
 * Two ways to carry a request: a unix socket of this machine, and HTTPS. Both bound what they read and how
 * long they wait.
 */
import type { IncomingMessage } from 'node:http'
import { MiB } from '#base/bytes.ts'
import { Fault, messageOf } from '#base/fault.ts'
import type { Transport, TransportReply, TransportRequest } from './client.ts'
import { exchangeOnSocket } from './socket-exchange.ts'

const defaultTimeoutMs = 60_000
const replyBytes = 64 * MiB

export interface TransportOptions {
  /** Without a byte for this long, the other side counts as gone. */
  readonly timeoutMs?: number
}

export interface ClosableTransport extends Disposable {
  readonly send: Transport
}

/** Over a unix socket, where the peer knows who calls by uid. A connection per call: it costs less than keeping one. */
export function unixTransport(socketPath: string, options: TransportOptions = {}): ClosableTransport {
  const { timeoutMs = defaultTimeoutMs } = options
  const peer = `the node at ${socketPath}`
  const send: Transport = async (request) => {
    try {
      return await exchangeOnSocket(request, { socketPath, timeoutMs, replyBytes, peer })
    } catch (cause) {
      throw carryFault(peer, cause, request.signal)
    }
  }
  return { send, [Symbol.dispose]: () => {} }
}

export interface HttpsOptions extends TransportOptions {
  /** For instance `https://127.0.0.1:8006`. */
  readonly url: string
  /** Certificate (PEM) to trust beside the public authorities: the node's own. */
  readonly certificate?: string
  /** It is known to be the node's, whatever names are in it. */
  readonly isKnown?: boolean
}

/** Keeps its connection between calls. */
export function httpsTransport(options: HttpsOptions): ClosableTransport {
  const { url, certificate, isKnown = false, timeoutMs = defaultTimeoutMs } = options
  // Loaded here, because the command line speaks to a socket and does without TLS.
  const { Agent, request: startRequest } = process.getBuiltinModule('node:https')
  const { hostname, port } = new URL(url)
  const place = { host: hostname.replace(/^\[|\]$/g, ''), port: port === '' ? 443 : Number(port), timeout: timeoutMs }
  const known = isKnown ? { allowPartialTrustChain: true, checkServerIdentity: () => undefined } : {}
  const agent = new Agent({ keepAlive: true, ...known, ...(certificate === undefined ? {} : { ca: certificate }) })
  const send: Transport = ({ method, target, headers, body, signal }: TransportRequest) =>
    new Promise((resolve, reject) => {
      const fail = (cause: unknown) => reject(carryFault(url, cause, signal))
      const settings = { ...place, agent, method, path: target, headers, ...(signal ? { signal } : {}) }
      const request = startRequest(settings, (reply) => void readWhole(reply).then(resolve, fail))
      request.on('timeout', () => request.destroy(silence(url, timeoutMs)))
      request.on('error', fail)
      if (body === undefined || typeof body === 'string') request.end(body)
      else body.on('error', (cause) => request.destroy(cause)).pipe(request)
    })
  return { send, [Symbol.dispose]: () => agent.destroy() }
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

function silence(peer: string, timeoutMs: number): Fault {
  return new Fault('timeout', `${peer} did not answer within ${timeoutMs / 1000} s`)
}

function carryFault(peer: string, cause: unknown, signal: AbortSignal | undefined): Fault {
  if (cause instanceof Fault) return cause
  if (signal?.aborted) return new Fault('aborted', 'interrupted', { cause })
  return new Fault('unavailable', `${peer} cannot be reached: ${messageOf(cause)}`, {
    cause,
    remedy: 'See whether the node is up: `hako doctor`.',
  })
}
