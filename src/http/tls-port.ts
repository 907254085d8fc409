/**
 * One port for TLS, and for those who forgot the `s`.
 *
 * The first byte tells: 0x16 begins a TLS handshake. Anything else is plain HTTP and gets a redirect to
 * https, so that a person typing an address arrives. The peeked byte is put back before TLS sees the socket.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer as createHttpsServer, type Server } from 'node:https'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type Clock, systemClock } from '#base/clock.ts'
import { limits } from '#base/limits.ts'
import { bounds } from './bounds.ts'
import { answerClientError } from './client-error.ts'
import { nodeHttp } from './node-http.ts'
import { standardHeaders } from './send.ts'
import { isWebSocket } from './websocket.ts'

export interface TlsPortOptions {
  readonly key: string
  readonly certificate: string
  readonly onRequest: (request: IncomingMessage, response: ServerResponse) => void
  readonly clock?: Clock
  readonly headersTimeoutMs?: number
}

const tlsHandshake = 0x16

/** What may change while the server listens. */
export function tlsContext({ key, certificate }: Pick<TlsPortOptions, 'key' | 'certificate'>) {
  return { key, cert: certificate, minVersion: 'TLSv1.2' } as const
}

/** The server, not yet listening. */
export function createTlsServer(options: TlsPortOptions): Server {
  const { http } = limits
  const { onRequest, clock = systemClock, headersTimeoutMs = http.headersTimeoutMs } = options
  const server = createHttpsServer(
    {
      ...tlsContext(options),
      // The reason phrase carries the error text, and HTTP/2 has none.
      ALPNProtocols: ['http/1.1'],
      handshakeTimeout: bounds.tlsHandshakeMs,
      maxHeaderSize: http.headerBytes,
      headersTimeout: headersTimeoutMs,
      // An upload may take hours. The daemon limits every other body, and uploads have a limit on silence.
      requestTimeout: 0,
      connectionsCheckingInterval: bounds.checkEveryMs,
      keepAliveTimeout: bounds.keepAliveMs,
      shouldUpgradeCallback: isWebSocket,
    },
    onRequest,
  )
  server.maxConnections = http.openConnections
  server.on('clientError', (error: Error, socket: Duplex) => answerClientError(error, socket, clock))
  const plain = nodeHttp.createServer({ maxHeaderSize: http.headerBytes }, (request, response) =>
    redirect(request, response, clock),
  )
  const startTls = server.listeners('connection')
  server.removeAllListeners('connection')
  server.on('connection', (socket: Socket) => {
    peek(socket, headersTimeoutMs, (first) => {
      if (first === tlsHandshake) for (const start of startTls) start.call(server, socket)
      else {
        closeAfter(socket, headersTimeoutMs, clock)
        plain.emit('connection', socket)
        socket.resume()
      }
    })
  })
  return server
}

/** Waits for the first byte, and puts it back. A connection that stays silent is closed. */
function peek(socket: Socket, silentMs: number, then: (first: number) => void): void {
  const fail = () => socket.destroy()
  socket.setTimeout(silentMs, fail)
  socket.on('error', fail)
  socket.once('data', (bytes: Buffer) => {
    socket.setTimeout(0)
    socket.removeListener('timeout', fail)
    socket.removeListener('error', fail)
    socket.pause()
    socket.unshift(bytes)
    then(bytes[0] ?? 0)
  })
}

/** One redirect takes no longer than this, however slowly it is asked for. */
function closeAfter(socket: Socket, ms: number, clock: Clock): void {
  const closed = new AbortController()
  socket.once('close', () => closed.abort())
  clock.sleep(ms, closed.signal).then(
    () => socket.destroy(),
    () => {}, // It was closed before.
  )
}

function redirect(request: IncomingMessage, response: ServerResponse, clock: Clock): void {
  const { host } = request.headers
  const isSafe = host !== undefined && /^[\w.:[\]-]+$/.test(host)
  const isRead = request.method === 'GET' || request.method === 'HEAD'
  const headers = [...standardHeaders(clock), 'Connection', 'close', 'Content-Length', '0']
  if (isSafe) response.writeHead(isRead ? 301 : 308, [...headers, 'Location', `https://${host}${request.url ?? '/'}`])
  else response.writeHead(400, 'speak HTTPS on this port', headers)
  response.end()
}
