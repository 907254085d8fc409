/** What is damaged or lost here, fetched from a copy of the datastore. Needs no key: names prove what comes. */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault, isFault } from '#base/fault.ts'
import { isAsNamed } from './as-named.ts'
import { suspectsFolder } from './chunk-index.ts'
import type { Datastore } from './datastore.ts'
import { goOn } from './go-on.ts'
import { gonePacks } from './gone-packs.ts'
import { packName } from './pack.ts'
import type { Place } from './place.ts'
import { copyProven } from './proven-copy.ts'
import { Segment } from './segment.ts'

export interface Refetched {
  /** Packs and parts of the index that are whole again. */
  readonly fetched: readonly string[]
  /** What the copy has not, or not whole; and what cannot be replaced here. */
  readonly missing: readonly string[]
}

/** @throws Fault `conflict` when the other is no copy of it */
export async function refetch(datastore: Datastore, copy: Datastore, signal?: AbortSignal): Promise<Refetched> {
  if (copy.facts.id !== datastore.facts.id) {
    throw new Fault(
      'conflict',
      `the datastore in '${copy.place.label}' is no copy of that in '${datastore.place.label}'`,
    )
  }
  // Nothing that is fetched is collected before it is here.
  await using _writing = await datastore.lease('write')
  const [fetched, missing]: [string[], string[]] = [[], []]
  // The index first: it says which packs there are to be.
  for (const find of [damagedSegments, damagedPacks]) {
    for (const name of await find(datastore)) {
      goOn(signal)
      if (await isFetched(datastore, copy.place, name)) {
        fetched.push(name)
        await datastore.place.remove(`${suspectsFolder}${name.slice(-64)}`)
      } else missing.push(name)
    }
  }
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
    await rm(path, { force: true })
    return false
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
