/** Where a copy goes: one that was made before, or a place in which there is nothing yet. */
import { Fault, isFault } from '#base/fault.ts'
import { type Datastore, openDatastore } from '../datastore.ts'
import type { DatastoreDeps } from '../deps.ts'
import { formatMaximumBytes } from '../format.ts'
import { keyFileName, printKeyFile } from '../keys/key-file.ts'
import type { Place } from '../places/place.ts'
import { mendKeyFile } from './opening.ts'

/** @throws Fault `conflict` when another datastore is there */
export async function targetFor(from: Datastore, to: Place, deps: DatastoreDeps): Promise<Datastore> {
  const existing = await openDatastore(to, deps).catch((fault: unknown) => {
    if (isFault(fault, 'missing')) return undefined
    throw fault
  })
  if (existing && existing.facts.id !== from.facts.id) {
    throw new Fault('conflict', `the datastore in '${to.label}' is no copy of that in '${from.place.label}'`, {
      remedy: 'Name an empty directory, or the copy that was made of it.',
    })
  }
  // The keys first: a copy nobody can open is none.
  const keys = await from.keyFile()
  const isPut = await to.put(keyFileName(keys.generation), Buffer.from(printKeyFile(keys)))
  // The name is taken: by the same, or by what counts for nothing.
  if (existing && !isPut) await mendKeyFile(existing, from).catch(unlessBarred)
  if (existing) return existing
  const format = await from.place.get('format', formatMaximumBytes)
  if (!format) throw new Fault('missing', `there is no datastore in '${from.place.label}' any more`)
  await to.put('format', format)
  return openDatastore(to, deps)
}

/** Locked, or not ours to replace. */
function unlessBarred(fault: unknown): void {
  if (!isFault(fault, 'conflict') && !isFault(fault, 'denied')) throw fault
}
