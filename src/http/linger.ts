/**
 * Refusing a request whose body is still on its way.
 *
 * Closing at once makes the kernel answer the unread bytes with a reset, which throws away the reply before
 * the client has read it; reading everything lets the client send forever. So: send the whole reply, take
 * in a bounded rest for a bounded time, then close.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Clock } from '#base/clock.ts'
import { bounds } from './bounds.ts'

/** Ends the response with `body`; headers, with their Content-Length, are written already. */
export function endGently(request: IncomingMessage, response: ServerResponse, body: Uint8Array, clock: Clock): void {
  if (request.complete || request.destroyed) {
    response.end(body)
    return
  }
  response.write(body)
  const done = new AbortController()
  let seen = 0
  request.on('data', (part: Uint8Array) => {
    seen += part.length
    if (seen > bounds.lingerBytes) done.abort()
  })
  request.once('end', () => done.abort())
  request.once('close', () => done.abort())
  request.on('error', () => done.abort())
  request.resume()
  // The pause ends early by rejecting; either way this is the end.
  const finish = () => void response.end()
  clock.sleep(bounds.lingerMs, done.signal).then(finish, finish)
}
