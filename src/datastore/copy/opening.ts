/**
 * What opens a datastore, `format` and the key file, fetched from a copy where it is damaged or gone.
 *
 * Nothing of another datastore may get in that way. A key file proves itself by its signature; `format` says whose signatures
 * count, so it is taken only when something that lies here is signed by whom it names.
 */
import { Fault, isFault } from '#base/fault.ts'
import { Datastore, openDatastore } from '../datastore.ts'
import type { DatastoreDeps } from '../deps.ts'
import { formatMaximumBytes } from '../format.ts'
import { findKeys, type FoundKeys } from '../keys/found-keys.ts'
import { isGenuine, type KeyFile, keyFileName, printKeyFile, unlock } from '../keys/key-file.ts'
import type { SlotSecret } from '../keys/slot.ts'
import type { Place } from '../places/place.ts'
import { brokenManifests } from './whole-manifest.ts'

export interface MendOpeningOptions {
  readonly deps: DatastoreDeps
  /** Proves a key file of before they were signed. */
  readonly secret?: SlotSecret | undefined
}

/**
 * @returns names of what was fetched
 * @throws Fault `conflict` when nothing here proves that the other is a copy of it, or what is damaged is locked
 */
export async function mendOpening(place: Place, copy: Datastore, options: MendOpeningOptions): Promise<string[]> {
  const fetched: string[] = []
  const found = await openDatastore(place, options.deps).catch(unlessDamagedOrGone)
  if (!found) {
    await requireProof(place, copy)
    const format = await copy.place.get('format', formatMaximumBytes)
    if (!format) throw new Fault('missing', `there is no datastore in '${copy.place.label}' any more`)
    await putWhole(place, 'format', format)
    fetched.push('format')
  }
  const datastore = found ?? (await openDatastore(place, options.deps))
  return [...fetched, ...(await mendKeyFile(datastore, copy, options.secret))]
}

/**
 * Takes the key file of the copy where there is none here that counts, or where that of its name does not. What is whole here
 * stays, though the copy may have a later one: whoever owns the copy may have let others into that alone.
 * @returns its name, when it was fetched
 */
export async function mendKeyFile(datastore: Datastore, copy: Datastore, secret?: SlotSecret): Promise<string[]> {
  const { place, facts } = datastore
  const own = await findKeys(place, facts).catch(unlessDamagedOrGone)
  const file = await copy.keyFile().catch(unlessDamagedOrGone)
  if (!file || !isBetter(file, own) || !(await isProven(file, facts.signer, secret))) return []
  const name = keyFileName(file.generation)
  await putWhole(place, name, Buffer.from(printKeyFile(file)))
  return [name]
}

function isBetter({ generation }: KeyFile, own: FoundKeys | undefined): boolean {
  if (!own) return true
  const isDamaged = own.passedOver.some(({ name }) => name === keyFileName(generation))
  return isDamaged && generation > own.files[0].generation
}

async function isProven(file: KeyFile, signer: Buffer, secret: SlotSecret | undefined): Promise<boolean> {
  if (file.signature !== undefined) return isGenuine(file, signer)
  if (!secret) return false
  return (await unlock(file, secret)).keyring.isOf(signer)
}

/** @throws Fault `conflict` */
async function requireProof(place: Place, copy: Datastore): Promise<void> {
  const keys = await findKeys(place, copy.facts).catch(unlessDamagedOrGone)
  if (keys?.files[0].signature !== undefined) return
  const here = new Datastore(place, copy.deps, copy.facts)
  const points = await here.points()
  if (points.length > (await brokenManifests(here)).length) return
  throw new Fault('conflict', `nothing in '${place.label}' proves that '${copy.place.label}' is a copy of it`, {
    remedy: 'To make a copy of a datastore in an empty place: hako datastore sync.',
  })
}

/** In the place of what has the name, with the lock such a thing is put with. @throws Fault `conflict` while that is locked */
export async function putWhole(place: Place, name: string, content: Buffer): Promise<void> {
  if (!place.lock) return place.replace(name, content)
  await place.remove(name)
  await place.put(name, content)
}

function unlessDamagedOrGone(fault: unknown): undefined {
  if (!isFault(fault, 'damaged') && !isFault(fault, 'missing')) throw fault
}
