/** Manifests that can be believed: whole, and signed by the datastore or somebody it vouches for. */
import { isFault } from '#base/fault.ts'
import type { Datastore } from '../datastore.ts'
import type { RestorePoint } from '../point.ts'

/** One that is gone is not damaged. */
export async function isWholeManifest(datastore: Datastore, point: RestorePoint): Promise<boolean> {
  try {
    return (await datastore.manifest(point)).isSigned(datastore.facts.signer)
  } catch (fault) {
    if (isFault(fault, 'missing')) return true
    if (!isFault(fault, 'damaged')) throw fault
    return false
  }
}

/** Oldest first. */
export async function brokenManifests(datastore: Datastore): Promise<RestorePoint[]> {
  const broken: RestorePoint[] = []
  for (const point of await datastore.points()) if (!(await isWholeManifest(datastore, point))) broken.push(point)
  return broken
}
