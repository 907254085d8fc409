/** A disk behind an NBD server – a running guest's, or a stopped one's image – as a source. */
import type { NbdClient } from '#host/nbd/nbd.ts'
import type { BlockSource } from '../block-source.ts'

/** Takes the client over: disposing of the source closes it. */
export function nbdSource(client: NbdClient): BlockSource {
  return {
    sizeBytes: client.sizeBytes,
    extents: () => client.extents(),
    read: (offset, into) => client.read(offset, into),
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  }
}
