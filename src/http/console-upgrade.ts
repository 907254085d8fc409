/**
 * The second act of opening a console: the WebSocket. Whether the caller may, and whether the ticket holds, is judged
 * by the endpoint of that path like any other request; then the connection is handed to the console.
 */
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { parseForm } from '#rest/body.ts'
import type { Dispatcher } from '#rest/dispatch.ts'
import type { WireReply } from '#rest/reply.ts'
import { placeOf } from './place.ts'
import { rawResponse } from './send.ts'
import type { ClaimUpgrade, UpgradeHandler } from './websocket.ts'
import { acceptOf, WebSocketStream } from './websocket-stream.ts'
import { clientHeader } from './wire.ts'

export interface ConsoleDoor {
  readonly dispatcher: Dispatcher
  /** @throws Fault when nothing waits there for this ticket */
  readonly take: (port: number, ticket: string) => (client: Duplex) => void
  readonly clock: Clock
}

export function claimConsoles({ dispatcher, take, clock }: ConsoleDoor): ClaimUpgrade {
  return async ({ request, who }) => {
    const place = placeOf(request.method ?? '', request.url ?? '/')
    if ('status' in place || !/\/vncwebsocket\/?$/.test(place.path)) return undefined
    const handshake = handshakeFor(request)
    const gone = new AbortController()
    request.socket.once('close', () => gone.abort())
    const told = request.headers[clientHeader]
    const reply = await dispatcher.handle({
      ...place,
      method: 'GET',
      format: 'json',
      authenticate: () => Promise.resolve(who),
      body: () => Promise.resolve({}),
      signal: gone.signal,
      remoteAddress: typeof told === 'string' ? told : '',
    })
    if (reply.kind !== undefined) return refusal(reply, clock)
    const give = take(portIn(reply), String(parseForm(place.query).vncticket))
    return (socket, head) => {
      socket.write(handshake)
      give(new WebSocketStream(socket, head, { clock }))
    }
  }
}

/** @throws Fault `unauthenticated`, which is answered late */
function refusal(reply: WireReply, clock: Clock): UpgradeHandler {
  if (reply.kind === 'unauthenticated') throw new Fault('unauthenticated', reply.reason)
  return (socket) => socket.end(rawResponse(reply, clock), () => socket.destroy())
}

function portIn({ body }: WireReply): number {
  const { data } = JSON.parse(body) as { data: { port: string } }
  return Number(data.port)
}

/** @throws Fault `invalid` when the request is no handshake we know */
function handshakeFor({ headers }: IncomingMessage): string {
  const key = headers['sec-websocket-key'] ?? ''
  if (headers['sec-websocket-version'] !== '13') {
    throw new Fault('invalid', 'this WebSocket has another version than 13, which is the only one served')
  }
  if (!/^[A-Za-z0-9+/]{22}==$/.test(key)) throw new Fault('invalid', 'the WebSocket was asked for without its key')
  const offered = (headers['sec-websocket-protocol'] ?? '').split(',').map((name) => name.trim())
  const protocol = offered.includes('binary') ? 'binary' : offered[0]
  const lines = [
    'HTTP/1.1 101 Switching Protocols',
    'Upgrade: websocket',
    'Connection: Upgrade',
    `Sec-WebSocket-Accept: ${acceptOf(key)}`,
  ]
  if (protocol !== undefined && /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(protocol)) {
    lines.push(`Sec-WebSocket-Protocol: ${protocol}`)
  }
  return `${lines.join('\r\n')}\r\n\r\n`
}
