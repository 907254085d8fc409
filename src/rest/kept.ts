/**
 * Replies given again: a long list that many ask for, again and again, is made once for each caller and as long
 * as nothing it follows from has changed, and packed once.
 *
 * What it follows from is said by the endpoint (`basis`), never guessed: a reply kept under a basis that left
 * something out would be wrong for good. Rights are part of what changes in the store, so the caller stands for
 * them. The bytes kept have a bound; what was not asked for the longest goes first.
 */
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import type { WireReply } from './reply.ts'

const compress = promisify(gzip)

const keptBytesMaximum = 32 << 20
/** As fast as it gets while a list of rows is still a tenth of its size. */
const level = 4

interface Kept {
  readonly basis: string
  readonly reply: WireReply
  /** Of `reply` and what it was packed into. */
  bytes: number
}

export class KeptReplies {
  readonly #kept = new Map<string, Kept>()
  #bytes = 0

  /**
   * @param key caller, endpoint and parameters
   * @param basis what the reply follows from besides these
   */
  async reply(
    key: string,
    basis: string,
    how: { readonly takesGzip: boolean; readonly make: () => Promise<WireReply> },
  ): Promise<WireReply> {
    const known = this.#kept.get(key)
    const kept = known?.basis === basis ? known : { basis, reply: await how.make(), bytes: 0 }
    const reply =
      how.takesGzip && kept.reply.packed === undefined
        ? { ...kept.reply, packed: await compress(kept.reply.body, { level }) }
        : kept.reply
    this.#keep(key, { ...kept, reply })
    return reply
  }

  #keep(key: string, kept: Kept): void {
    this.#drop(key)
    kept.bytes = kept.reply.body.length + (kept.reply.packed?.length ?? 0)
    if (kept.bytes > keptBytesMaximum) return
    this.#kept.set(key, kept)
    this.#bytes += kept.bytes
    for (const oldest of this.#kept.keys()) {
      if (this.#bytes <= keptBytesMaximum) break
      this.#drop(oldest)
    }
  }

  #drop(key: string): void {
    this.#bytes -= this.#kept.get(key)?.bytes ?? 0
    this.#kept.delete(key)
  }
}
