/** Ties a client to the daemon: bytes both ways until either side has ended. */
import type { Duplex } from 'node:stream'
import type { Clock } from '#base/clock.ts'
import { bounds } from './bounds.ts'

export function tie(client: Duplex, upstream: Duplex, clock: Clock): void {
  const over = new AbortController()
  const end = () => {
    over.abort()
    client.destroy()
    upstream.destroy()
  }
  // What the daemon said last may still be on its way to the client.
  const endGently = () => {
    client.end()
    client.resume()
    clock.sleep(bounds.lingerMs, over.signal).then(end, () => {}) // The client was quicker.
  }
  client.on('error', end)
  client.on('close', end)
  upstream.on('error', () => {}) // `close` follows.
  upstream.on('close', endGently)
  upstream.pipe(client).pipe(upstream)
}
