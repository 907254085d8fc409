/**
 * Ties a client and what it looks at together: bytes both ways, as fast as the slower side takes them.
 *
 * Node's `pipeline` was tried and left: it takes a line that closes without an end (a terminal whose program has
 * ended) for a failure, and throws away what the client has yet to read.
 */
import type { Duplex, Readable, Transform, Writable } from 'node:stream'
import { finished } from 'node:stream/promises'

export interface Joining {
  /** What the client sends on its way to the line. */
  readonly through?: Transform
  /** Ends the line; at once, unless something else is said. */
  readonly letGo?: (line: Duplex) => void
}

/**
 * Resolves when either side has ended, however, having ended the other. The client still gets what was said.
 * @throws what is wrong with it, by `through`
 */
export async function joined(
  client: Duplex,
  line: Duplex,
  { through, letGo = (it) => it.destroy() }: Joining = {},
): Promise<void> {
  const ways = through ? [pumped(client, through), pumped(through, line)] : [pumped(client, line)]
  try {
    await Promise.race([...ways, pumped(line, client)])
    if (through?.errored) throw through.errored
  } finally {
    letGo(line)
    through?.destroy()
  }
  client.end()
  await finished(client).catch(() => {}) // Broken off instead of ended: it has gone either way.
}

/** Resolves when there is nothing more to carry. */
function pumped(from: Readable, to: Writable): Promise<void> {
  return new Promise((resolve) => {
    from.on('data', (part: Uint8Array) => {
      if (!to.destroyed && !to.write(part)) from.pause()
    })
    to.on('drain', () => from.resume())
    for (const event of ['end', 'close', 'error']) from.once(event, () => resolve())
    for (const event of ['close', 'error']) to.once(event, () => resolve())
    if (from.destroyed || from.readableEnded || to.destroyed) resolve()
  })
}
