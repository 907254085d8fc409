/**
 * The port viewers by SPICE connect to: for them an HTTP proxy, which leads nowhere but to the guest their ticket is
 * for. The ticket stands where a proxy is told a host.
 *
 * A viewer asks to be connected once for each of its channels; whether it may is the daemon's to say. Then it begins
 * TLS with the guest's own QEMU, and what passes here nobody can read.
 */
import type { IncomingMessage, Server } from 'node:http'
import type { Duplex } from 'node:stream'
import { type Clock, systemClock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import { faultReply } from '#rest/reply.ts'
import { bounds } from './bounds.ts'
import { unreachable } from './call-link.ts'
import { answerClientError } from './client-error.ts'
import { nodeHttp } from './node-http.ts'
import { rawResponse, standardHeaders } from './send.ts'
import { tie } from './tie.ts'
import { clientHeader, spiceHeader, spiceProtocol } from './wire.ts'

export interface SpicePortOptions {
  readonly daemonSocket: string
  readonly clock?: Clock
  readonly headersTimeoutMs?: number
}

/** The longest name of a host, and a port. */
const target = /^[a-z0-9.-]{1,253}:[0-9]{1,5}$/

/** The server, not yet listening. */
export function createSpicePort(options: SpicePortOptions): Server {
  const { http } = limits
  const { clock = systemClock, daemonSocket, headersTimeoutMs = http.headersTimeoutMs } = options
  const server = nodeHttp.createServer(
    {
      maxHeaderSize: http.headerBytes,
      headersTimeout: headersTimeoutMs,
      connectionsCheckingInterval: bounds.checkEveryMs,
      keepAliveTimeout: bounds.keepAliveMs,
    },
    (_, response) => {
      response.writeHead(405, 'this port is for viewers by SPICE', [
        ...standardHeaders(clock),
        'Allow',
        'CONNECT',
        'Connection',
        'close',
        'Content-Length',
        '0',
      ])
      response.end()
    },
  )
  server.maxConnections = http.openConnections
  server.on('clientError', (error: Error, socket: Duplex) => answerClientError(error, socket, clock))
  server.on('connect', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => socket.destroy())
    // No viewer speaks before it is answered.
    if (!target.test(request.url ?? '') || head.length > 0) {
      refuse(socket, new Fault('invalid', 'this is not what a viewer by SPICE asks for'), clock)
    } else lead(request, socket, { daemonSocket, clock })
  })
  return server
}

interface Way {
  readonly daemonSocket: string
  readonly clock: Clock
}

/** Asks the daemon for the guest, and ties the viewer to it. */
function lead(request: IncomingMessage, socket: Duplex, { daemonSocket, clock }: Way): void {
  const asked = nodeHttp.request({
    socketPath: daemonSocket,
    path: '/',
    timeout: bounds.replyMs,
    headers: {
      Connection: 'Upgrade',
      Upgrade: spiceProtocol,
      [spiceHeader]: request.url,
      [clientHeader]: request.socket.remoteAddress ?? '',
    },
  })
  const giveUp = () => asked.destroy()
  socket.once('close', giveUp)
  asked.on('error', (cause) => refuse(socket, unreachable(cause), clock))
  asked.on('timeout', giveUp)
  asked.on('response', (answer) => {
    answer.resume()
    const { statusCode: status = 500, statusMessage: reason = '' } = answer
    socket.end(rawResponse({ status, reason, contentType: 'text/plain', body: '' }, clock), () => socket.destroy())
  })
  asked.on('upgrade', (_, upstream, begun) => {
    socket.off('close', giveUp)
    upstream.setTimeout(0)
    if (socket.destroyed) return void upstream.destroy()
    request.socket.setKeepAlive(true, bounds.spiceAliveMs)
    socket.write('HTTP/1.1 200 OK\r\n\r\n')
    socket.write(begun)
    tie(socket, upstream, clock)
  })
  asked.end()
}

function refuse(socket: Duplex, fault: Fault, clock: Clock): void {
  if (!socket.destroyed) socket.end(rawResponse(faultReply('json', fault), clock), () => socket.destroy())
}
