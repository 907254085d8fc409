/**
 * Requests that HTTP itself cannot read: too slow, too long, no HTTP at all. They get a reply in our form, and
 * the connection ends gently: closing at once would reset it and throw the reply away (see `linger.ts`).
 */
import type { Duplex } from 'node:stream'
import type { Clock } from '#base/clock.ts'
import { codeOf } from '#host/files.ts'
import type { WireReply } from '#rest/reply.ts'
import { bounds } from './bounds.ts'
import { rawResponse } from './send.ts'

export function answerClientError(error: Error, socket: Duplex, clock: Clock): void {
  // Bytes that follow are unreadable too and come here again.
  if (!socket.writable || socket.writableEnded) return
  if (codeOf(error) === 'ECONNRESET') return void socket.destroy()
  socket.end(rawResponse(replyTo(error), clock))
  const closed = new AbortController()
  socket.on('error', () => socket.destroy())
  socket.once('close', () => closed.abort())
  socket.once('end', () => socket.destroy())
  socket.resume()
  clock.sleep(bounds.lingerMs, closed.signal).then(
    () => socket.destroy(),
    () => {}, // The client has closed it.
  )
}

function replyTo(error: Error): WireReply {
  switch (codeOf(error)) {
    case 'HPE_HEADER_OVERFLOW':
      return refusal(431, 'the headers are too long', 'too-large')
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return refusal(408, 'the request took too long to arrive', 'timeout')
    default:
      return refusal(400, 'this is not HTTP/1.1', 'invalid')
  }
}

function refusal(status: number, reason: string, kind: 'too-large' | 'timeout' | 'invalid'): WireReply {
  const body = JSON.stringify({ data: null, message: `${reason}\n`, kind })
  return { status, reason, contentType: 'application/json;charset=UTF-8', body, kind }
}
