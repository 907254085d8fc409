/**
 * The datastores of a node: made when they are first needed, opened by the node's own key.
 *
 * Whenever one is opened the ways into it are made what they should be: the recovery key in force opens it, and none that
 * was in force before. So a change of that key reaches a storage that was away as soon as it is back.
 */
import { seconds } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { DatastoreAt } from '#base/datastore-at.ts'
import { createDatastore } from '#datastore/create-datastore.ts'
import { type Datastore, openDatastore, type OpenDatastore } from '#datastore/datastore.ts'
import type { DatastoreDeps } from '#datastore/deps.ts'
import { FolderPlace } from '#datastore/places/folder-place.ts'
import { type KeyFile, type Unlocked, withConfirmed, withoutSlot, withSlot } from '#datastore/keys/key-file.ts'
import { rotated } from '#datastore/keys/keyring.ts'
import type { Place } from '#datastore/places/place.ts'
import type { NewSlot, SlotSecret } from '#datastore/keys/slot.ts'
import { isOfFirstFormat, ofFirstFormat } from './first-format/found.ts'
import type { NodeKeys } from './node-keys.ts'
import type { Places } from './places.ts'
import { isSettled } from './take-over.ts'

export interface NodeDatastoreNeeds extends DatastoreDeps {
  readonly keys: NodeKeys
  /** The ways to what is elsewhere; without it there are folders alone. */
  readonly places?: Pick<Places, 'open'>
  /** Nobody else wants anything of this process. */
  readonly isAlone?: boolean
}

/** A datastore whose files are let go of with it. */
export interface HeldDatastore extends AsyncDisposable {
  readonly datastore: Datastore
  /** Backups of the storage are in this one. */
  readonly namespace: string
}

function held(at: DatastoreAt, place: Place, datastore: Datastore): HeldDatastore {
  const namespace = typeof at === 'string' ? '' : at.namespace
  return { datastore, namespace, [Symbol.asyncDispose]: () => place[Symbol.asyncDispose]() }
}

/** @throws Fault `missing`, `damaged`; `unavailable` for one of the first format */
export async function holdDatastore(at: DatastoreAt, needs: NodeDatastoreNeeds): Promise<HeldDatastore> {
  const place = await placeOf(at, needs)
  try {
    return held(at, place, await openDatastore(place, needs))
  } catch (cause) {
    await place[Symbol.asyncDispose]()
    if (typeof at !== 'string') throw cause
    if (isFault(cause, 'missing') && (await isSettled(at))) return holdDatastore(at, needs)
    throw isFault(cause, 'invalid') && (await isOfFirstFormat(at)) ? ofFirstFormat(at) : cause
  }
}

/** The caller disposes of it; there need not be a datastore. @throws Fault `unavailable` */
export async function placeOf(at: DatastoreAt, { places, random, isAlone }: NodeDatastoreNeeds): Promise<Place> {
  if (typeof at === 'string') return new FolderPlace(at, random, { isAlone })
  if (places) return places.open(at)
  throw new Fault('unavailable', 'nobody here knows the way to what is elsewhere')
}

/** As `holdDatastore`, made when there is none. @throws Fault `conflict` before a recovery key is confirmed */
export async function holdOrMake(at: DatastoreAt, needs: NodeDatastoreNeeds): Promise<HeldDatastore> {
  try {
    return await holdDatastore(at, needs)
  } catch (cause) {
    if (!isFault(cause, 'missing')) throw cause
  }
  const ways = await waysOf(needs)
  const place = await placeOf(at, needs)
  try {
    await place.prepare()
    // Before the first file: what is kept has to be from the beginning.
    if (typeof at === 'object' && at.kind === 's3' && at.retainSeconds !== undefined)
      await place.retain?.(at.retainSeconds)
    return held(at, place, await createDatastore(place, needs, { ways }))
  } catch (cause) {
    await place[Symbol.asyncDispose]()
    // Somebody else has just made it.
    if (isFault(cause, 'conflict')) return holdDatastore(at, needs)
    throw cause
  }
}

/** @throws Fault `unavailable` when the node's key does not open it */
export async function unlockDatastore(datastore: Datastore, needs: NodeDatastoreNeeds): Promise<OpenDatastore> {
  const unlocked = await nodeKeysTo(datastore, needs)
  const kept = await keptWays(datastore, unlocked, needs).catch((cause: unknown) => {
    // What is full or read-only can be read all the same.
    needs.log.warn('the recovery key in force does not open a datastore yet', { path: datastore.place.label, cause })
    return unlocked
  })
  return datastore.opened(kept)
}

/** Makes true that the recovery key in force opens the datastore, and none before it. @throws Fault */
export async function keepWaysInto(datastore: Datastore, needs: NodeDatastoreNeeds): Promise<void> {
  await keptWays(datastore, await nodeKeysTo(datastore, needs), needs)
}

/** The keys alone. @throws Fault `unavailable` when the node's key does not open it */
export async function nodeKeysTo(datastore: Datastore, { keys }: NodeDatastoreNeeds): Promise<Unlocked> {
  try {
    return await datastore.keys(await keys.own())
  } catch (cause) {
    if (!isFault(cause, 'denied')) throw cause
    throw new Fault('unavailable', `the datastore '${datastore.place.label}' does not open by this node's key`, {
      remedy:
        'When the key of the node was lost, show the recovery key: `hako recovery-key use`. When the datastore was made elsewhere, let the node in by what opens it: `hako backup attach`.',
      cause,
    })
  }
}

/** Gives the node its ways into a datastore that others made. @throws Fault `denied`, `conflict` */
export async function attachDatastore(
  datastore: Datastore,
  secret: SlotSecret,
  needs: NodeDatastoreNeeds,
): Promise<void> {
  await needs.keys.requireRecovery()
  await letIn(datastore, secret, await needs.keys.own(), needs)
  await keepWaysInto(datastore, needs)
}

/**
 * A key of the node opens the datastore from now on, beside those that do.
 * @throws Fault `denied` when the secret does not open it
 */
export async function letIn(
  datastore: Datastore,
  secret: SlotSecret,
  own: SlotSecret,
  { keys, clock, random }: NodeDatastoreNeeds,
): Promise<void> {
  if (await opensBy(datastore, own)) return
  const way = { secret: own, confirmed: false, comment: commentOf(keys), created: seconds(clock) }
  const file = await withSlot(random, await datastore.keys(secret), way)
  await datastore.putKeyFile(file)
  await datastore.removeOldKeyFiles(file.generation)
}

/**
 * Keys the node had before open the datastore no longer, and what is stored from now on is sealed with a new key: nobody
 * knows who has what was lost. @returns how many there were
 */
export async function forgetFormerKeys(datastore: Datastore, needs: NodeDatastoreNeeds): Promise<number> {
  let now = await keptWays(datastore, await nodeKeysTo(datastore, needs), needs)
  const isFormer = ({ id, kind, role, comment }: Unlocked['slot']) =>
    kind === 'key' && role === undefined && comment === commentOf(needs.keys) && id !== now.slot.id
  const former = now.file.slots.filter(isFormer)
  for (const { id } of former) {
    const secrets = rotated(now.keyring.secrets, needs.random)
    now = await changed(datastore, withoutSlot(needs.random, now, id, secrets), needs)
  }
  return former.length
}

/** The way of a node is known by it, in a list of ways as well. */
function commentOf({ node }: NodeKeys): string {
  return `node ${node}`
}

export async function opensBy(datastore: Datastore, secret: SlotSecret): Promise<boolean> {
  try {
    await datastore.keys(secret)
    return true
  } catch (fault) {
    if (isFault(fault, 'denied')) return false
    throw fault
  }
}

async function waysOf({ keys, clock }: NodeDatastoreNeeds): Promise<[NewSlot, NewSlot]> {
  const recovery = await keys.requireRecovery()
  const facts = { comment: commentOf(keys), created: seconds(clock) }
  return [
    { secret: await keys.own(), confirmed: false, ...facts },
    { secret: { kind: 'recovery', public: recovery.public }, confirmed: true, ...facts },
  ]
}

async function keptWays(datastore: Datastore, unlocked: Unlocked, needs: NodeDatastoreNeeds): Promise<Unlocked> {
  const { state } = await needs.keys.status()
  if (state !== 'confirmed') return unlocked
  try {
    return await tidied(datastore, unlocked, needs)
  } catch (fault) {
    // Another process of the node has just done it.
    if (isFault(fault, 'conflict')) return nodeKeysTo(datastore, needs)
    throw fault
  }
}

async function tidied(datastore: Datastore, unlocked: Unlocked, needs: NodeDatastoreNeeds): Promise<Unlocked> {
  const { public: current, retired } = await needs.keys.requireRecovery()
  const isOurs = (slot: { readonly kind: string; readonly public: string }, half: string) =>
    slot.kind === 'recovery' && slot.public === half
  let now = unlocked
  const wanted = current.toString('base64')
  const there = now.file.slots.find((slot) => isOurs(slot, wanted))
  if (!there) {
    const [, recovery] = await waysOf(needs)
    now = await changed(datastore, await withSlot(needs.random, now, recovery), needs)
  } else if (!there.confirmed)
    now = await changed(datastore, withConfirmed(needs.random, { ...now, slot: there }), needs)
  for (const slot of now.file.slots) {
    if (!retired.some((half) => isOurs(slot, half))) continue
    const secrets = rotated(now.keyring.secrets, needs.random)
    now = await changed(datastore, withoutSlot(needs.random, now, slot.id, secrets), needs)
  }
  return now
}

/** @throws Fault `conflict` when somebody else changed the keys meanwhile */
async function changed(datastore: Datastore, file: KeyFile, needs: NodeDatastoreNeeds): Promise<Unlocked> {
  await datastore.putKeyFile(file)
  await datastore.removeOldKeyFiles(file.generation)
  return nodeKeysTo(datastore, needs)
}
