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
    endWhole(response, body)
    return
  }
  response.write(body)
  void taken(request, clock).then(() => response.end())
}

/**
 * A short body travels with the headers, in one write and one TLS record: Node puts them together when both are
 * text of one encoding. Latin-1 has a character for each byte, so nothing of the body changes.
 */
function endWhole(response: ServerResponse, body: Uint8Array): void {
  if (body.length > bounds.wholeBytes) response.end(body)
  else response.end(Buffer.from(body.buffer, body.byteOffset, body.length).toString('latin1'), 'latin1')
}

/**
 * As `endGently`, on a connection that is kept whatever the reply: only who sends on and on is cut off. A
 * closing daemon would meet its peer's last write, which then fails before the reply is read.
 */
export function endOpen(request: IncomingMessage, response: ServerResponse, body: Uint8Array, clock: Clock): void {
  endWhole(response, body)
  if (request.complete || request.destroyed) return
  void taken(request, clock).then(() => {
    if (!request.complete) request.destroy()
  })
}

/** Takes in what is still on its way, up to the bounds. Never rejects. */
function taken(request: IncomingMessage, clock: Clock): Promise<void> {
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
  return clock.sleep(bounds.lingerMs, done.signal).catch(() => {})
}
