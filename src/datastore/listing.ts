/**
 * Backups with what is sealed in their manifests, for who has the keys. Many are read at once, and what only some have
 * (notes, protection) is asked of those alone.
 */
import { Fault, isFault } from '#base/fault.ts'
import type { Datastore } from './datastore.ts'
import type { Keyring } from './keyring.ts'
import { type Manifest, type ManifestHead, openManifest } from './manifest.ts'
import { type Marks, marksName } from './marks.ts'
import type { RestorePoint } from './point.ts'
import { readAhead } from './window.ts'

const readsAtOnce = 16

/** A manifest that cannot be read is listed with its damage. */
export interface OpenedPoint {
  readonly point: RestorePoint
  readonly marks: Marks
  readonly manifest?: Manifest
  readonly damage?: string
}

/** Oldest first. */
export async function listOpened(
  datastore: Datastore,
  keyring: Keyring,
  isWanted: (point: RestorePoint) => boolean = () => true,
): Promise<OpenedPoint[]> {
  const marked = new Set<string>()
  for await (const { name } of datastore.place.list('marks/')) marked.add(name)
  const points = (await datastore.points()).filter(isWanted)
  const listed: OpenedPoint[] = []
  const read = async (point: RestorePoint) => openedPoint(datastore, keyring, point, marked.has(marksName(point)))
  for await (const one of readAhead(points, readsAtOnce, read)) if (one) listed.push(one)
  return listed
}

/** Nothing when it is not there any more. */
async function openedPoint(
  datastore: Datastore,
  keyring: Keyring,
  point: RestorePoint,
  hasMarks: boolean,
): Promise<OpenedPoint | undefined> {
  let marks: Marks = {}
  try {
    if (hasMarks) marks = await datastore.marks(point)
    const sealed = await datastore.manifest(point)
    const head: ManifestHead = { point, pointInTime: sealed.pointInTime, finished: sealed.finished }
    return { point, marks, manifest: { ...head, ...openManifest(keyring, sealed) }, ...damageIn(marks) }
  } catch (fault) {
    if (isFault(fault, 'missing')) return undefined
    if (!(fault instanceof Fault)) throw fault
    return { point, marks, damage: fault.message }
  }
}

function damageIn({ damage }: Marks): { readonly damage?: string } {
  return damage === undefined ? {} : { damage }
}
