/** Packs and parts of the index are called by the hash of what is in them: so anybody can tell whether they are whole. */
import { MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { letGo } from '#base/let-go.ts'
import { NameDigest } from '../digests.ts'
import type { Place } from '../places/place.ts'

const step = 4 * MiB

/** Whether it is what its name says. What is gone meanwhile is nothing to mend: of that nothing is said. */
export async function isAsNamed(place: Place, name: string, sizeBytes: number): Promise<boolean> {
  const hash = new NameDigest()
  using plan = place.plan?.()
  for (let at = 0; at < sizeBytes; at += step) plan?.add(name, at, Math.min(step, sizeBytes - at))
  try {
    for (let at = 0; at < sizeBytes; at += step) {
      const bytes = await place.read(name, at, Math.min(step, sizeBytes - at))
      hash.update(bytes)
      letGo(bytes)
    }
  } catch (fault) {
    if (isFault(fault, 'missing')) return true
    if (isFault(fault, 'damaged')) return false
    throw fault
  }
  return hash.hex() === name.slice(-64)
}
