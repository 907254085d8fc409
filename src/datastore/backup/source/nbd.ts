/** A disk behind an NBD server – a running guest's, or a stopped one's image – as a source or a target. */
import type { NbdClient } from '#host/nbd/nbd.ts'
import type { BlockSource } from '../block-source.ts'
import type { BlockTarget } from '../../restore/block-target.ts'

/** Takes the client over: disposing of the source closes it. */
export function nbdSource(client: NbdClient): BlockSource {
  return {
    sizeBytes: client.sizeBytes,
    extents: () => client.extents(),
    read: (offset, into) => client.read(offset, into),
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  }
}

/** As `nbdSource`, for an export that may be written and reads as zeros. */
export function nbdTarget(client: NbdClient): BlockTarget {
  return {
    sizeBytes: client.sizeBytes,
    write: (offset, bytes) => client.write(offset, bytes),
    flush: () => client.flush(),
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  }
}
