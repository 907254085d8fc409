/**
 * Replies the front gives again by itself: what many ask for again and again, such as lists of guests, does not
 * travel to the daemon each time.
 *
 * The daemon says which replies may be kept, how long (the running second at most) and under which mark; the
 * front compares the mark before it gives one again, so a change made by anybody is seen by the next request. A
 * reply belongs to the proof it was asked with, and to nobody else: the rights it was judged by are in the store,
 * and a change of them changes the mark. Each time it is given the daemon hears of it, for its access log.
 *
 * Two bounds: the running second, and the bytes that are held.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Clock } from '#base/clock.ts'
import type { LinkReply } from './call-message.ts'
import { type Sendable, acceptsGzip, replyHeaders } from './send.ts'
import { bounds } from './bounds.ts'

const keptBytesMaximum = 32 << 20
/** What an entry holds beside its body, roughly. */
const entryBytes = 2 << 10
const tellEveryMs = 1000
/** By then every kept reply is out of date. */
const secondMs = 1000

interface Kept {
  /** Of the call the daemon answered. */
  readonly id: number
  readonly mark: string
  readonly until: number
  readonly bytes: number
  readonly status: number
  readonly reason: string
  readonly headers: string[]
  /** Text of one byte for each character where it is short: it then leaves together with the headers. */
  readonly body: string | Uint8Array
  /** How often it was given to whom since the daemon was told. */
  readonly given: Map<string, number>
}

export interface KeptOptions {
  readonly clock: Clock
  /** The mark as it is now. */
  readonly mark: () => string
  /** Tells the daemon. */
  readonly given: (id: number, times: number, remoteAddress: string) => void
}

export class KeptReplies {
  readonly #options: KeptOptions
  readonly #kept = new Map<string, Kept>()
  readonly #untold = new Set<Kept>()
  #bytes = 0

  constructor(options: KeptOptions) {
    this.#options = options
  }

  /** Answers the request, if it can. */
  give(request: IncomingMessage, response: ServerResponse): boolean {
    const kept = this.#kept.get(keyOf(request))
    if (kept === undefined || !this.#isGood(kept)) return false
    response.writeHead(kept.status, kept.reason, kept.headers)
    if (typeof kept.body === 'string') response.end(kept.body, 'latin1')
    else response.end(kept.body)
    this.#count(kept, request.socket.remoteAddress ?? '')
    return true
  }

  /** @param ready as it goes to the client */
  keep(request: IncomingMessage, { keep }: LinkReply, ready: Sendable): void {
    const { clock } = this.#options
    if (keep === undefined || request.method !== 'GET') return
    const key = keyOf(request)
    this.#drop(key)
    const body = Buffer.from(ready.body)
    const bytes = key.length + body.length + entryBytes
    if (bytes > keptBytesMaximum) return
    this.#kept.set(key, {
      ...keep,
      bytes,
      status: ready.status,
      reason: ready.reason,
      // The date in them is that of the second in which they are used.
      headers: replyHeaders({ ...ready, body }, clock),
      body: body.length > bounds.wholeBytes ? body : body.toString('latin1'),
      given: new Map(),
    })
    this.#bytes += bytes
    for (const [oldest, { until }] of this.#kept) {
      if (this.#bytes <= keptBytesMaximum && clock.now() < until) break
      this.#drop(oldest)
    }
  }

  /** For when the daemon is lost: another one knows nothing of these. */
  clear(): void {
    this.#kept.clear()
    this.#untold.clear()
    this.#bytes = 0
  }

  /** A clock that was set back does not prolong it. */
  #isGood({ until, mark }: Kept): boolean {
    const leftMs = until - this.#options.clock.now()
    return leftMs > 0 && leftMs <= secondMs && mark === this.#options.mark()
  }

  #count(kept: Kept, remoteAddress: string): void {
    kept.given.set(remoteAddress, (kept.given.get(remoteAddress) ?? 0) + 1)
    if (this.#untold.size === 0) void this.#options.clock.sleep(tellEveryMs).then(() => this.#tell())
    this.#untold.add(kept)
  }

  #tell(): void {
    for (const { id, given } of this.#untold) {
      for (const [remoteAddress, times] of given) this.#options.given(id, times, remoteAddress)
      given.clear()
    }
    this.#untold.clear()
  }

  #drop(key: string): void {
    this.#bytes -= this.#kept.get(key)?.bytes ?? 0
    this.#kept.delete(key)
  }
}

/** Everything of a request that its reply may depend on, beside the mark. */
function keyOf(request: IncomingMessage): string {
  const { cookie = '', authorization = '' } = request.headers
  return `${acceptsGzip(request) ? 'z' : ''}\n${request.url}\n${cookie}\n${authorization}`
}
