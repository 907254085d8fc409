/** Reading for who checks: what is found in the pack that was read last, and not by the index, is missed by who begins elsewhere. */
import { OpenDatastore } from '../datastore.ts'
import { ChunkReader } from '../chunks/chunk-reader.ts'

export function byIndexAlone({ datastore, unlocked, index, keyring }: OpenDatastore): OpenDatastore {
  const { place } = datastore
  return new OpenDatastore(datastore, unlocked, index, new ChunkReader({ place, keyring, index, isByIndexAlone: true }))
}
