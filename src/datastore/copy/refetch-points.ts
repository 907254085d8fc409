/** Manifests and marks of backups that are damaged here, or gone, fetched from a copy. */
import { Fault, isFault } from '#base/fault.ts'
import { LiveChunks } from '../tidy/live-chunks.ts'
import type { Datastore, OpenDatastore } from '../datastore.ts'
import { formatMaximumBytes, manifestMaximumBytes } from '../format.ts'
import { allEntries } from '../index/merge.ts'
import type { Lease } from '../places/lease.ts'
import { ChunkWriter } from '../chunks/chunk-writer.ts'
import { pointOfPath, printPoint, type RestorePoint } from '../point.ts'
import { manifestName, openManifest, parseManifest } from '../points/manifest.ts'
import { type Marks, marksName, parseMarks, printMarks } from '../points/marks.ts'
import { putWhole } from './opening.ts'
import { brokenManifests } from './whole-manifest.ts'

const manifestFileMaximumBytes = manifestMaximumBytes * 1.5

/** A manifest the copy has as it was signed; nothing when it has none that is whole. */
async function provenManifest(copy: Datastore, point: RestorePoint, signer: Buffer): Promise<Buffer | undefined> {
  try {
    const text = await copy.place.get(manifestName(point), manifestFileMaximumBytes)
    if (!text) return undefined
    return parseManifest(text.toString('utf8'), point).isSigned(signer) ? text : undefined
  } catch (fault) {
    if (isFault(fault, 'damaged')) return undefined
    throw fault
  }
}

/** Whose manifest is there and damaged: what it named nobody has collected, as nobody could. */
export async function refetchManifests(datastore: Datastore, copy: Datastore, onEach: OnEach): Promise<void> {
  for (const point of await brokenManifests(datastore)) {
    await onEach(manifestName(point), async () => {
      const text = await provenManifest(copy, point, datastore.facts.signer)
      if (!text) return false
      // Where the damaged one has to go first: marks say that it is lost, should nobody live to put the other.
      if (datastore.place.lock) await datastore.place.put(marksName(point), Buffer.from(printMarks({})))
      await putWhole(datastore.place, manifestName(point), text)
      return true
    })
  }
}

/** Told of each name, and does the work: which says whether it is whole now. */
export type OnEach = (name: string, fetch: () => Promise<boolean>) => Promise<void>

/**
 * Marks are signed by nobody. What a copy has of them may be old, and those here may have said that nobody removes the backup:
 * that holds until somebody says otherwise.
 */
export async function refetchMarks(datastore: Datastore, copy: Datastore, onEach: OnEach): Promise<void> {
  for await (const { name } of datastore.place.list('marks/')) {
    const point = pointOfPath(name.slice('marks/'.length))
    if (!point || (await marksOf(datastore, point))) continue
    await onEach(name, async () => {
      const kept = await marksOf(copy, point)
      if (!kept) return false
      const { notes, hint } = kept
      await datastore.place.replace(name, Buffer.from(printMarks({ notes, hint, protected: true })))
      return true
    })
  }
}

/** Nothing when they are damaged. */
async function marksOf({ place }: Datastore, point: RestorePoint): Promise<Marks | undefined> {
  try {
    const text = await place.get(marksName(point), formatMaximumBytes)
    return text ? parseMarks(text.toString('utf8'), printPoint(point)) : {}
  } catch (fault) {
    if (isFault(fault, 'damaged')) return undefined
    throw fault
  }
}

/**
 * Backups whose manifest is gone though their marks are there: who removes a backup removes those first. Chunks of theirs may
 * have been collected, so whoever brings one back needs the keys, and fetches what is not here any more.
 */
export async function lostPoints(datastore: Datastore, copy: Datastore): Promise<RestorePoint[]> {
  const there = new Set((await datastore.points()).map(printPoint))
  const lost: RestorePoint[] = []
  for await (const { name } of datastore.place.list('marks/')) {
    const point = pointOfPath(name.slice('marks/'.length))
    if (!point || there.has(printPoint(point))) continue
    if (await provenManifest(copy, point, datastore.facts.signer)) lost.push(point)
  }
  return lost
}

/** @returns false when the copy has not all it takes */
export async function bringBack(
  open: OpenDatastore,
  copy: OpenDatastore,
  point: RestorePoint,
  lease: Lease,
): Promise<boolean> {
  const { place, deps, facts } = open.datastore
  const text = await provenManifest(copy.datastore, point, facts.signer)
  if (!text) return false
  try {
    const body = openManifest(open.keyring, parseManifest(text.toString('utf8'), point))
    const needed = await LiveChunks.of(copy.index.segments)
    await needed.mark(copy, body)
    const packs = new Set<string>()
    for await (const entries of allEntries(copy.index.segments)) {
      for (const { id, pack } of entries) if (needed.has(id) && !(await open.index.has(id))) packs.add(pack)
    }
    const { keyring, index } = open
    await using writer = new ChunkWriter({ place, keyring, index, random: deps.random, lease, level: 1 })
    for (const pack of packs) {
      const isWanted = async ({ id }: { readonly id: Buffer }) => needed.has(id) && !(await writer.has(id))
      for (const { id, stored, plainBytes, flags } of await copy.chunks.storedIn(pack, isWanted)) {
        await writer.store(id, stored, plainBytes, flags)
      }
    }
    await writer.flush()
  } catch (fault) {
    if (fault instanceof Fault && (isFault(fault, 'damaged') || isFault(fault, 'missing'))) return false
    throw fault
  }
  await place.put(manifestName(point), text)
  return true
}
