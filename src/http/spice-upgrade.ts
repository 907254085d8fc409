/** The daemon's side of the port for SPICE: judges the ticket a viewer brought, and takes its connection over. */
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { Fault } from '#base/fault.ts'
import { faultReply } from '#rest/reply.ts'
import type { EdgeContext } from './edge.ts'
import { rawResponse } from './send.ts'
import { afterFailedLogin } from './session.ts'
import { spiceHeader, spiceProtocol } from './wire.ts'

/** Whether the front, and nobody else, brings a viewer. */
export function isSpice({ headers, method }: IncomingMessage, { origin }: Pick<EdgeContext, 'origin'>): boolean {
  return origin.kind === 'front' && method === 'GET' && headers.upgrade === spiceProtocol
}

export async function serveSpice(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  context: EdgeContext,
): Promise<void> {
  const { clock, log, takeSpice } = context
  const startedMs = clock.monotonic()
  socket.on('error', () => socket.destroy())
  try {
    const [, ticket = '', port = ''] = /^([^:]*):(\d+)$/.exec(String(request.headers[spiceHeader])) ?? []
    if (!takeSpice || ticket === '') throw new Fault('invalid', 'this is no ticket for SPICE')
    const give = await takeSpice(ticket, Number(port))
    if (socket.destroyed) return
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${spiceProtocol}\r\n\r\n`)
    if (head.length > 0) socket.unshift(head)
    give(socket)
  } catch (error) {
    if (!(error instanceof Fault)) log.error('bug in an upgrade', { error })
    const fault = error instanceof Fault ? error : new Fault('failed', 'internal error')
    if (fault.kind === 'unauthenticated') await afterFailedLogin(startedMs, context)
    socket.end(rawResponse(faultReply('json', fault), clock), () => socket.destroy())
  }
}
