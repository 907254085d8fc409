/** Chunks somebody will read, announced to a place where that makes fewer requests. */
import { MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import type { Location } from '../index/segment.ts'
import type { Place, ReadPlan } from '../places/place.ts'
import { packName } from '../packs/pack.ts'
import type { ChunkReader } from './chunk-reader.ts'

/** Announced at most. */
const announcedBytes = 48 * MiB
/** Brought into the order of their packs at once: 4 GiB of a disk. */
const orderedAtOnce = 32_768

export interface Wanted {
  readonly id: Buffer
  /** Where it lies, when that is known. */
  readonly location?: Location | undefined
}

/** One behind another in a pack. */
type Part = Pick<Location, 'pack' | 'offset' | 'length'>

export function announce(plan: ReadPlan, { pack, offset, length }: Part): void {
  plan.add(packName(pack), offset, length)
}

/** Passes on what will be read, in its order, and has some of it announced before. */
export async function* planned<T>(
  place: Place,
  items: AsyncIterable<T>,
  partOf: (item: T) => Part | undefined,
): AsyncGenerator<T> {
  const plan = place.plan?.()
  if (!plan) {
    yield* items
    return
  }
  using undo = new DisposableStack()
  undo.use(plan)
  const ahead: { readonly item: T; readonly bytes: number }[] = []
  let bytes = 0
  for await (const item of items) {
    const part = partOf(item)
    if (part) announce(plan, part)
    ahead.push({ item, bytes: part?.length ?? 0 })
    bytes += part?.length ?? 0
    while (bytes > announcedBytes) {
      const first = ahead.shift()
      bytes -= first?.bytes ?? 0
      if (first) yield first.item
    }
  }
  for (const { item } of ahead) yield item
  // The last ones are still to be read by who has them now.
  undo.move()
}

/** For who does not mind the order: pack by pack, some thousands at a time. What is nowhere has no location. */
export async function* inOrderOfPacks<T extends Wanted>(
  chunks: ChunkReader,
  items: AsyncIterable<T>,
): AsyncGenerator<T & { readonly location: Location | undefined }> {
  let some: (T & { readonly location: Location | undefined })[] = []
  for await (const item of items) {
    // A copy of the id: what it is part of is far larger.
    some.push({ ...item, id: Buffer.from(item.id), location: await located(chunks, item.id) })
    if (some.length < orderedAtOnce) continue
    yield* some.sort(byPack)
    some = []
  }
  yield* some.sort(byPack)
}

export async function located(chunks: ChunkReader, id: Buffer): Promise<Location | undefined> {
  try {
    return await chunks.locate(id)
  } catch (fault) {
    // Said by who reads it.
    if (isFault(fault, 'damaged')) return undefined
    throw fault
  }
}

function byPack({ location: one }: Wanted, { location: other }: Wanted): number {
  if (one?.pack !== other?.pack) return (one?.pack ?? '') < (other?.pack ?? '') ? -1 : 1
  return (one?.offset ?? 0) - (other?.offset ?? 0)
}

/** Chunks in whatever order costs least, announced. Where nothing is announced they come as they are. */
export function chunksToRead<T extends Wanted>(chunks: ChunkReader, items: AsyncIterable<T>): AsyncIterable<T> {
  if (!chunks.place.plan) return items
  return planned(chunks.place, inOrderOfPacks(chunks, items), ({ location }) => location)
}
