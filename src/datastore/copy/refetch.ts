/**
 * What is damaged or lost here, fetched from a copy of the datastore. Names and signatures prove what comes, so it needs no key:
 * but where locks are, and where what a lost manifest named may be gone as well.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault, isFault } from '#base/fault.ts'
import type { Mark } from '#base/pace.ts'
import { isAsNamed } from '../packs/as-named.ts'
import { suspectsFolder } from '../index/chunk-index.ts'
import { mendIndex } from '../tidy/repair.ts'
import { ChunkWriter } from '../chunks/chunk-writer.ts'
import type { Datastore, OpenDatastore } from '../datastore.ts'
import { goOn } from '../go-on.ts'
import { gonePacks } from '../verify/gone-packs.ts'
import type { Lease } from '../places/lease.ts'
import type { Unlocked } from '../keys/key-file.ts'
import { packName } from '../packs/pack.ts'
import type { Place } from '../places/place.ts'
import { manifestName } from '../points/manifest.ts'
import { mendKeyFile } from './opening.ts'
import { copyProven } from './proven-copy.ts'
import { bringBack, lostPoints, type OnEach, refetchManifests, refetchMarks } from './refetch-points.ts'
import { Segment } from '../index/segment.ts'

export interface Refetched {
  /** Files that are whole again, and packs of which all is stored elsewhere now. */
  readonly fetched: readonly string[]
  /** What the copy has not, or not whole; and what cannot be replaced here. */
  readonly missing: readonly string[]
  /** What nobody can replace before a date: with the keys it is stored beside. */
  readonly locked: readonly string[]
}

export interface RefetchOptions {
  readonly keys?: Unlocked | undefined
  readonly signal?: AbortSignal | undefined
  /** What is wrong is looked for (`look`), then fetched (`packs`). */
  readonly onProgress?: ((mark: Mark) => void) | undefined
}

/** @throws Fault `conflict` when the other is no copy of it */
export async function refetch(
  datastore: Datastore,
  copy: Datastore,
  { keys, signal, onProgress }: RefetchOptions = {},
): Promise<Refetched> {
  if (copy.facts.id !== datastore.facts.id) {
    throw new Fault(
      'conflict',
      `the datastore in '${copy.place.label}' is no copy of that in '${datastore.place.label}'`,
    )
  }
  // Nothing that is fetched is collected before it is here.
  await using writing = await datastore.lease('write')
  const [fetched, missing]: [string[], string[]] = [await mendKeyFile(datastore, copy), []]
  const locked = new Set<string>()
  // The index first: it says which packs there are to be.
  for (const find of [damagedSegments, damagedPacks]) {
    onProgress?.({ phase: 'look' })
    const names = await find(datastore)
    for (const [number, name] of names.entries()) {
      goOn(signal)
      onProgress?.({ phase: 'packs', fraction: number / names.length })
      if ((await datastore.place.lock?.until(name)) !== undefined) locked.add(name)
      else if (await isFetched(datastore, copy.place, name)) {
        fetched.push(name)
        await datastore.place.remove(`${suspectsFolder}${name.slice(-64)}`)
      } else missing.push(name)
    }
  }
  const onEach: OnEach = async (name, fetch) => {
    goOn(signal)
    const isWhole = (await datastore.place.lock?.until(name)) === undefined && (await isAllowed(fetch))
    ;(isWhole ? fetched : missing).push(name)
  }
  await refetchManifests(datastore, copy, onEach)
  await refetchMarks(datastore, copy, onEach)
  const lost = await lostPoints(datastore, copy)
  if (!keys) return { fetched, missing: [...missing, ...lost.map(manifestName)], locked: [...locked] }
  if (missing.length + locked.size + lost.length === 0) return { fetched, missing, locked: [] }
  const open = await datastore.opened(keys)
  const [copied, from] = [await mendedIndex(open, missing), await copy.opened(keys)]
  const beside = await storeBeside(open, from, [...locked], writing)
  for (const point of lost) {
    goOn(signal)
    ;((await bringBack(open, from, point, writing)) ? beside.fetched : beside.missing).push(manifestName(point))
  }
  return { fetched: [...fetched, ...beside.fetched], missing: [...copied, ...beside.missing], locked: [] }
}

/** What a copy has under other names the packs say themselves. @returns what is still missing */
async function mendedIndex(open: OpenDatastore, missing: readonly string[]): Promise<string[]> {
  const isOfIndex = (name: string) => name.startsWith('segments/')
  if (!missing.some(isOfIndex) || !(await mendIndex(open))) return [...missing]
  return missing.filter((name) => !isOfIndex(name))
}

/** What may not be replaced stays as it is. */
async function isAllowed(fetch: () => Promise<boolean>): Promise<boolean> {
  try {
    return await fetch()
  } catch (fault) {
    if (!isFault(fault, 'conflict') && !isFault(fault, 'denied')) throw fault
    return false
  }
}

/** What cannot be replaced is stored once more, in a pack of another name. The one that is locked stays suspected. */
async function storeBeside(open: OpenDatastore, copy: OpenDatastore, names: readonly string[], lease: Lease) {
  const { datastore, keyring, index } = open
  const { place, deps } = datastore
  await using writer = new ChunkWriter({ place, keyring, index, random: deps.random, lease, level: 1 })
  const [fetched, missing]: [string[], string[]] = [[], []]
  const isNamed = async ({ id }: { readonly id: Buffer }) => (await index.find(id)) !== undefined
  for (const name of names) {
    try {
      const chunks = await copy.chunks.storedIn(name.slice(-64), isNamed)
      for (const { id, stored, plainBytes, flags } of chunks) await writer.store(id, stored, plainBytes, flags)
      fetched.push(name)
    } catch (fault) {
      if (!isFault(fault, 'damaged') && !isFault(fault, 'missing')) throw fault
      missing.push(name)
    }
  }
  await writer.flush()
  return { fetched, missing }
}

async function isFetched({ place, deps }: Datastore, from: Place, name: string): Promise<boolean> {
  const path = join(place.stagingDir, `refetch-${deps.random.uuid()}`)
  try {
    if (!(await copyProven(from, name, path))) return false
  } catch (fault) {
    if (isFault(fault, 'damaged')) return false
    throw fault
  }
  try {
    await place.replaceFile(name, path)
    return true
  } catch (fault) {
    // Locked, or not ours to replace: what is there stays.
    if (!isFault(fault, 'conflict') && !isFault(fault, 'denied')) throw fault
    return false
  } finally {
    await rm(path, { force: true })
  }
}

async function damagedSegments({ place }: Datastore): Promise<string[]> {
  const damaged: string[] = []
  for await (const { name, sizeBytes } of place.list('segments/'))
    if (!(await isAsNamed(place, name, sizeBytes))) damaged.push(name)
  return damaged
}

/** In which damage was seen, and such that a part of the index names and are not there. */
async function damagedPacks({ place }: Datastore): Promise<string[]> {
  const damaged = new Set<string>()
  for await (const { name } of place.list(suspectsFolder)) damaged.add(packName(name.slice(suspectsFolder.length)))
  const segments: Segment[] = []
  for await (const { name, sizeBytes } of place.list('segments/')) {
    // One that is damaged still names what it should not.
    if (await isAsNamed(place, name, sizeBytes)) segments.push(await Segment.open(place, name))
  }
  for (const pack of await gonePacks(place, segments)) damaged.add(packName(pack))
  return [...damaged]
}
