/**
 * The daemon's HTTP server, one per unix socket. Maps HTTP to the dispatcher and back; decides nothing else.
 *
 * `api.sock` proves identity by peer credentials (a ticket or token in the request comes first, so that root
 * can act as somebody else); `front.sock` lets in the front's uid alone and proves identity by ticket or token.
 * Only there are the front's own headers believed.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { limits } from '#base/limits.ts'
import { faultReply, type WireReply } from '#rest/reply.ts'
import { bounds } from './bounds.ts'
import { isCallLink, serveCalls } from './call-server.ts'
import type { ApiServerOptions, EdgeContext } from './edge.ts'
import { nodeHttp } from './node-http.ts'
import { descriptorOf } from '#host/programs/descriptor-passing.ts'
import { placeOf } from './place.ts'
import { EdgeRequest } from './request.ts'
import { send } from './send.ts'
import { afterFailedLogin } from './session.ts'
import { isSpice, serveSpice } from './spice-upgrade.ts'
import { answerUpgrade, isWebSocket } from './websocket.ts'
import { askForUpload, uploadHeader } from './wire.ts'

export type { ApiServerOptions } from './edge.ts'

/** The server, not yet listening; `listenOnSocket` gives it a place. */
export function createApiServer(options: ApiServerOptions): Server {
  const context: EdgeContext = { ...options, peers: new WeakMap() }
  const { http } = limits
  const { requestTimeoutMs = http.requestTimeoutMs } = options
  const server = nodeHttp.createServer(
    {
      maxHeaderSize: http.headerBytes,
      headersTimeout: Math.min(http.headersTimeoutMs, requestTimeoutMs),
      requestTimeout: requestTimeoutMs,
      connectionsCheckingInterval: bounds.checkEveryMs,
      // The front keeps its connections as long as it likes; it is one process.
      keepAliveTimeout: options.origin.kind === 'front' ? 0 : bounds.keepAliveMs,
      shouldUpgradeCallback: (request) =>
        isWebSocket(request) || isCallLink(request, context) || isSpice(request, context),
    },
    (request, response) => void serve(request, response, context),
  )
  server.maxConnections = http.openConnections
  server.on('connection', (socket: Socket) => admitPeer(socket, context))
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    if (isCallLink(request, context)) serveCalls(socket, head, context)
    else if (isSpice(request, context)) void serveSpice(request, socket, head, context)
    else void answerUpgrade(request, socket, head, context)
  })
  return server
}

function admitPeer(socket: Socket, { peers, origin, peerCredentials, log }: EdgeContext): void {
  try {
    const { uid } = peerCredentials(descriptorOf(socket))
    if (origin.kind === 'front' && uid !== origin.uid) {
      log.warn('refused a connection to the front socket', { uid })
      socket.destroy()
    } else peers.set(socket, uid)
  } catch (error) {
    // Who cannot be known is not let in.
    log.error('cannot tell who connected', { error })
    socket.destroy()
  }
}

async function serve(request: IncomingMessage, response: ServerResponse, context: EdgeContext): Promise<void> {
  const { clock, log } = context
  const startedMs = clock.monotonic()
  try {
    const reply = await answer(request, response, context)
    if (reply.kind === 'unauthenticated') await afterFailedLogin(startedMs, context)
    const onBroken = (cause: unknown) => log.warn('a reply of bytes broke off', { path: request.url, cause })
    await send(request, response, reply, { clock, isKept: true, onBroken })
  } catch (error) {
    log.error('bug in the edge', { method: request.method, path: request.url, error })
    response.destroy()
  }
}

async function answer(request: IncomingMessage, response: ServerResponse, context: EdgeContext): Promise<WireReply> {
  const place = placeOf(request.method ?? '', request.url ?? '/', context.documents)
  if ('status' in place) return place
  const edge = new EdgeRequest({ request, response, context, ...place })
  const unexpected = edge.unexpectedBody()
  if (unexpected) return faultReply('json', unexpected)
  if (context.origin.kind === 'front' && request.headers[uploadHeader] === askForUpload) {
    return context.dispatcher.mayUpload(edge)
  }
  const refusal = edge.isLocalUpload ? await context.dispatcher.mayUpload(edge) : undefined
  const reply = refusal?.kind === undefined ? await context.dispatcher.handle(edge) : refusal
  if (reply.kind !== undefined) await edge.discard()
  return reply
}
