/** Reads a stream piece by piece, as a protocol's first words need it, and leaves the rest in the stream. */
import type { Readable } from 'node:stream'
import { Fault } from '#base/fault.ts'

export interface ReadLimit {
  readonly signal: AbortSignal
  /** For messages: `the client`. */
  readonly who: string
}

/**
 * Takes every byte as it comes. The tempting way, to ask the stream until it has enough, never returns: a stream that
 * holds something is readable again at once, and nobody else gets a turn.
 * @throws Fault `aborted` when the stream ends first, or the signal fires
 */
export async function readExactly(stream: Readable, bytes: number, limit: ReadLimit): Promise<Buffer> {
  const parts: Buffer[] = []
  for (let missing = bytes; missing > 0;) {
    const part: unknown = stream.read(Math.min(missing, stream.readableLength))
    if (Buffer.isBuffer(part) && part.length > 0) {
      parts.push(part)
      missing -= part.length
      continue
    }
    if (stream.readableEnded || stream.destroyed || limit.signal.aborted) throw gone(limit)
    await untilNews(stream, limit.signal)
  }
  return Buffer.concat(parts)
}

/** Without the line break. @throws Fault `aborted`; `invalid` for a longer one */
export async function readLine(stream: Readable, maximumBytes: number, limit: ReadLimit): Promise<string> {
  const bytes: number[] = []
  while (bytes.length <= maximumBytes) {
    const [byte = 0] = await readExactly(stream, 1, limit)
    if (byte === 0x0a) return Buffer.from(bytes).toString('utf8')
    bytes.push(byte)
  }
  throw new Fault('invalid', `the first line of ${limit.who} is longer than ${maximumBytes} bytes`)
}

function untilNews(stream: Readable, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const events = ['readable', 'end', 'close', 'error'] as const
    const settle = () => {
      for (const event of events) stream.off(event, settle)
      signal.removeEventListener('abort', settle)
      resolve()
    }
    for (const event of events) stream.on(event, settle)
    signal.addEventListener('abort', settle)
  })
}

function gone({ who, signal }: ReadLimit): Fault {
  return new Fault('aborted', signal.aborted ? `${who} took too long to say who it is` : `${who} has gone`)
}
