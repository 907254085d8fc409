/**
 * Upgrade requests.
 *
 * The front does not judge them: it sends the request to the daemon byte for byte (without its own headers)
 * and then only carries bytes. The daemon proves who asks, as for any GET, and hands the socket to whoever
 * claims the path; until somebody does, the answer is 501.
 */
import type { IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { notImplemented } from '#rest/dispatch.ts'
import type { Identity } from '#rest/endpoint.ts'
import { faultReply } from '#rest/reply.ts'
import { rawResponse } from './send.ts'
import type { EdgeContext } from './edge.ts'
import { afterFailedLogin, identityFrom, noTicket } from './session.ts'
import { tie } from './tie.ts'
import { clientHeader, ownPrefix, splitTarget } from './wire.ts'

export interface UpgradeRequest {
  readonly path: string
  readonly query: string
  readonly request: IncomingMessage
  readonly who: Identity
}

/** Takes the socket over: writes the handshake, then speaks. */
export type UpgradeHandler = (socket: Duplex, head: Buffer) => void
export type ClaimUpgrade = (request: UpgradeRequest) => Promise<UpgradeHandler | undefined>

/** Other upgrades a client may offer (`h2c`) are ignored, and the request is served as it is. */
export function isWebSocket(request: IncomingMessage): boolean {
  return request.headers.upgrade?.toLowerCase() === 'websocket'
}

/** The daemon's side. */
export async function answerUpgrade(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  context: EdgeContext,
): Promise<void> {
  const { clock, log } = context
  const startedMs = clock.monotonic()
  socket.on('error', () => socket.destroy())
  try {
    const handler = await claimed(request, context)
    if (socket.destroyed) return
    handler(socket, head)
  } catch (error) {
    // Without its query: tickets travel there.
    if (!(error instanceof Fault)) log.error('bug in an upgrade', { path: splitTarget(request.url ?? '/').path, error })
    const fault = error instanceof Fault ? error : new Fault('failed', 'internal error')
    if (fault.kind === 'unauthenticated') await afterFailedLogin(startedMs, context)
    socket.end(rawResponse(faultReply('json', fault), clock), () => socket.destroy())
  }
}

async function claimed(request: IncomingMessage, context: EdgeContext): Promise<UpgradeHandler> {
  const { path, query } = splitTarget(request.url ?? '/')
  const offered = await identityFrom(
    { headers: request.headers, method: 'GET', isUpload: false },
    context.authenticator,
  )
  const uid = context.peers.get(request.socket)
  const local = context.origin.kind === 'local' && uid !== undefined ? await context.origin.users(uid) : undefined
  const who = offered ?? local
  if (!who) throw noTicket()
  const handler = await context.claimUpgrade?.({ path, query, request, who })
  if (!handler) throw notImplemented(request.method ?? '', path)
  return handler
}

export interface CarryOptions {
  readonly daemonSocket: string
  readonly clock: Clock
}

/** The front's side: sends the request on as it came and joins the two sockets. */
export function carryUpgrade(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  { daemonSocket, clock }: CarryOptions,
): void {
  const upstream = connect(daemonSocket)
  let isConnected = false
  const end = () => {
    socket.destroy()
    upstream.destroy()
  }
  socket.on('error', end)
  socket.on('close', end)
  upstream.on('connect', () => {
    isConnected = true
    // In one piece: a daemon that has refused meanwhile would meet a second write, which loses its reply.
    upstream.write(Buffer.concat([Buffer.from(requestHead(request), 'latin1'), head]))
    tie(socket, upstream, clock)
  })
  upstream.on('error', (cause) => {
    if (isConnected) return // `close` follows.
    const fault = new Fault('unavailable', 'the daemon does not answer', { cause })
    socket.end(rawResponse(faultReply('json', fault), clock), end)
  })
}

/** Request line and headers, without any header only the front may set. */
function requestHead(request: IncomingMessage): string {
  const lines = [`${request.method} ${request.url} HTTP/1.1`]
  for (let at = 0; at < request.rawHeaders.length; at += 2) {
    const name = request.rawHeaders[at] ?? ''
    if (!name.toLowerCase().startsWith(ownPrefix)) lines.push(`${name}: ${request.rawHeaders[at + 1]}`)
  }
  lines.push(`${clientHeader}: ${request.socket.remoteAddress ?? ''}`)
  return `${lines.join('\r\n')}\r\n\r\n`
}
