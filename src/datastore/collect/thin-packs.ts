/** Packs of which little is alive: that is written into new ones, and they can go. */
import { isFault } from '#base/fault.ts'
import type { OpenDatastore } from '../datastore.ts'
import { suspectsFolder } from '../index/chunk-index.ts'
import type { Segment, SegmentEntry } from '../index/segment.ts'
import type { Lease } from '../places/lease.ts'
import { ChunkWriter } from '../chunks/chunk-writer.ts'
import { packName } from '../packs/pack.ts'
import type { Watched } from './watched.ts'

/** Packs whose living chunks are looked up in one walk through the index: some hundreds of each are in memory then. */
const rewrittenAtOnce = 4_096
/** A pack with less of it alive is written anew. */
const thin = 0.6

/** @param living bytes that live in each pack */
export async function thinPacks(
  { index, datastore }: OpenDatastore,
  packs: Iterable<string>,
  living: ReadonlyMap<string, number>,
): Promise<string[]> {
  const found: string[] = []
  for (const pack of packs) {
    const alive = living.get(pack)
    // What is damaged cannot be written anew; what of it is whole stays where it is.
    if (alive === undefined || index.isBad(pack)) continue
    const size = await datastore.place.sizeOf(packName(pack)).catch(() => 0)
    if (size > 0 && alive / size < thin) found.push(pack)
  }
  return found
}

interface Living {
  readonly segments: readonly Segment[]
  readonly stays: (entry: SegmentEntry) => boolean
}

/** Writes what lives in the packs into new ones. @returns bytes written, and those of the packs that may go */
export async function rewritePacks(
  open: OpenDatastore,
  packs: readonly string[],
  living: Living,
  { watched, lease }: { readonly watched: Watched; readonly lease: Lease },
): Promise<{ readonly packs: readonly string[]; readonly bytes: number }> {
  const { index, keyring } = open
  const { place, deps } = open.datastore
  await using writer = new ChunkWriter({ place, keyring, index, random: deps.random, lease, level: 1 })
  const rewritten: string[] = []
  let looked = 0
  for (let first = 0; first < packs.length; first += rewrittenAtOnce) {
    const some = packs.slice(first, first + rewrittenAtOnce)
    for (const [pack, offsets] of await offsetsIn(new Set(some), living, watched)) {
      watched.goOn()
      const chunks = await livingIn(open, pack, offsets)
      for (const { id, stored, plainBytes, flags } of chunks ?? []) await writer.store(id, stored, plainBytes, flags)
      if (chunks) rewritten.push(pack)
      looked += 1
      watched.tell('rewrite', looked, packs.length, writer.storedBytes)
    }
  }
  if (rewritten.length > 0) await writer.flush()
  return { packs: rewritten, bytes: writer.storedBytes }
}

/** Nothing where it is damaged: then it stays as it is. */
async function livingIn({ chunks, index, datastore }: OpenDatastore, pack: string, offsets: ReadonlySet<number>) {
  try {
    return await chunks.storedIn(pack, ({ offset }) => offsets.has(offset))
  } catch (fault) {
    if (!isFault(fault, 'damaged')) throw fault
    datastore.deps.log.warn('a damaged pack is not written anew', { pack, cause: fault })
    await datastore.place.put(`${suspectsFolder}${pack}`, Buffer.alloc(0))
    await index.reload()
    return undefined
  }
}

/**
 * Where in each pack a chunk lies that stays. What a pack holds and the index does not name has gone before, or lies
 * elsewhere as well.
 */
async function offsetsIn(
  packs: ReadonlySet<string>,
  { segments, stays }: Living,
  watched: Watched,
): Promise<Map<string, Set<number>>> {
  const offsets = new Map([...packs].map((pack) => [pack, new Set<number>()]))
  for await (const entries of watched.entriesOf(segments)) {
    for (const entry of entries) if (packs.has(entry.pack) && stays(entry)) offsets.get(entry.pack)?.add(entry.offset)
  }
  return offsets
}
