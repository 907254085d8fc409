/** Packs that were lost: a part of the index names them, and they are not there. */
import { isFault } from '#base/fault.ts'
import { isAsNamed } from '../packs/as-named.ts'
import { packName } from '../packs/pack.ts'
import type { Place } from '../places/place.ts'
import type { Segment } from '../index/segment.ts'

/** Their names. What a damaged part of the index names proves nothing. */
export async function gonePacks(place: Place, segments: readonly Segment[]): Promise<string[]> {
  const there = new Set<string>()
  for await (const { name } of place.list('packs/')) there.add(name.slice(-64))
  const gone = new Set<string>()
  for (const segment of segments) {
    const absent = segment.packs.filter((pack) => !there.has(pack))
    if (absent.length === 0 || !(await isWhole(place, segment))) continue
    for (const pack of absent) gone.add(pack)
  }
  const found: string[] = []
  // One that was put since then is there.
  for (const pack of gone) if (!(await isThere(place, pack))) found.push(pack)
  return found
}

async function isWhole(place: Place, { name }: Segment): Promise<boolean> {
  return isAsNamed(place, name, await sizeOf(place, name))
}

async function isThere(place: Place, pack: string): Promise<boolean> {
  return (await sizeOf(place, packName(pack))) > 0
}

async function sizeOf(place: Place, name: string): Promise<number> {
  return place.sizeOf(name).catch((fault: unknown) => {
    if (!isFault(fault, 'missing')) throw fault
    return 0
  })
}
