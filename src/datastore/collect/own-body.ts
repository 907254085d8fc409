/** Of backups this datastore has made, for who goes through all there are. */
import type { OpenDatastore } from '../datastore.ts'
import { printPoint, type RestorePoint } from '../point.ts'
import { type ManifestBody, openManifest } from '../points/manifest.ts'

/**
 * Nothing for a manifest that is whole and signed by somebody else: whoever may write can put one there, and it is no backup.
 * @throws Fault `missing`, `damaged`; `denied` when the keyring is too old for it
 */
export async function ownBody(
  { datastore, keyring }: Pick<OpenDatastore, 'datastore' | 'keyring'>,
  point: RestorePoint,
): Promise<ManifestBody | undefined> {
  const manifest = await datastore.manifest(point)
  if (manifest.isSigned(datastore.facts.signer)) return openManifest(keyring, manifest)
  const backup = printPoint(point)
  datastore.deps.log.warn('a manifest that this datastore has not signed is passed over', { backup })
  return undefined
}
