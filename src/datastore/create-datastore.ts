/** Makes a datastore where there is none. */
import { seconds } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { Datastore } from './datastore.ts'
import type { DatastoreDeps } from './deps.ts'
import { chunkSizes, defaultChunkBytes, formatMaximumBytes, formatVersion, keyFileMaximumBytes } from './format.ts'
import { firstKeyFile, isGenuine, keyFileName, parseKeyFile, printKeyFile, unlock } from './keys/key-file.ts'
import { Keyring, newSecrets } from './keys/keyring.ts'
import type { Place } from './places/place.ts'
import { seal } from './sealed.ts'
import type { NewSlot } from './keys/slot.ts'

export interface NewDatastore {
  readonly ways: readonly NewSlot[]
  readonly chunkBytes?: number
}

/** @throws Fault `conflict` when there is one already */
export async function createDatastore(
  place: Place,
  deps: DatastoreDeps,
  { ways, chunkBytes = defaultChunkBytes }: NewDatastore,
): Promise<Datastore> {
  if (!chunkSizes.some((size) => size === chunkBytes)) {
    throw new Fault('invalid', `chunks cannot have ${chunkBytes} bytes`, { remedy: `Choose ${chunkSizes.join(', ')}.` })
  }
  if (await place.get('format', formatMaximumBytes)) throw alreadyThere(place)
  const { id, signer } = await firstKeys(place, deps, ways)
  const facts = { id, created: seconds(deps.clock), chunkBytes, signer }
  const format = {
    format: 'hakobune-datastore',
    version: formatVersion,
    ...facts,
    signer: facts.signer.toString('base64'),
  }
  // Last, for with it the datastore exists.
  if (!(await place.put('format', Buffer.from(seal(format))))) throw alreadyThere(place)
  return new Datastore(place, deps, facts)
}

/** Those of somebody who came first are taken: of two who make a datastore at once, or after one who died in between. */
async function firstKeys(
  place: Place,
  { random }: DatastoreDeps,
  ways: readonly NewSlot[],
): Promise<{ readonly id: string; readonly signer: Buffer }> {
  const id = random.uuid()
  const secrets = newSecrets(random)
  const text = printKeyFile(await firstKeyFile(random, id, secrets, ways))
  if (await place.put(keyFileName(1), Buffer.from(text))) return { id, signer: new Keyring(secrets).signer }
  const found = await place.get(keyFileName(1), keyFileMaximumBytes)
  const file = parseKeyFile(found?.toString('utf8') ?? '', `'${keyFileName(1)}'`)
  for (const { secret } of ways) {
    if ('public' in secret) continue
    const { signer } = (await unlock(file, secret)).keyring
    if (isGenuine(file, signer)) return { id: file.datastore, signer }
  }
  throw alreadyThere(place)
}

function alreadyThere(place: Place): Fault {
  return new Fault('conflict', `there is a datastore in '${place.label}' already`)
}
