/** Packs that were lost: a part of the index names them, and they are not there. */
import { isFault } from '#base/fault.ts'
import { packName } from './pack.ts'
import type { Place } from './place.ts'
import type { Segment } from './segment.ts'

/** Their names. Of one that has only been put since everything was listed nothing is said. */
export async function gonePacks(place: Place, segments: readonly Segment[]): Promise<string[]> {
  const there = new Set<string>()
  for await (const { name } of place.list('packs/')) there.add(name.slice(-64))
  const named = new Set(segments.flatMap(({ packs }) => packs))
  const gone: string[] = []
  for (const pack of named) {
    if (there.has(pack)) continue
    await place.sizeOf(packName(pack)).catch((fault: unknown) => {
      if (!isFault(fault, 'missing')) throw fault
      gone.push(pack)
    })
  }
  return gone
}
