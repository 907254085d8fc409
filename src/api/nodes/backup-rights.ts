/** Rights that backups and restores take, beyond that of the call itself. */
import { asVolumeId } from '#base/ids.ts'
import { all, any, check, type Permission, rootOnly } from '#rest/endpoint.ts'
import { idsIn } from '#operations/backup/request.ts'
import { toChange, toRead, type Alternatives } from '#views/volume-access.ts'

/** Backing up: each guest, or all of them, and room on the storage. */
export function toBackUp(params: {
  readonly vmid?: string | undefined
  readonly pool?: string | undefined
  readonly storage?: string | undefined
  readonly fleecing?: string | undefined
  readonly 'prune-backups'?: string | undefined
}): Permission[] {
  const ids = idsIn(params.vmid)
  const others = [check('VM.Backup', params.pool === undefined ? '/vms' : `/pool/${params.pool}`)]
  const guests = ids.length > 0 ? ids.map((vmid) => check('VM.Backup', `/vms/${vmid}`)) : others
  const storages = [
    params.storage ?? 'local',
    ...(/(?:^|,)storage=([^,]+)/.exec(params.fleecing ?? '')?.slice(1) ?? []),
  ]
  const keeper =
    params['prune-backups'] === undefined ? [] : [check('Datastore.Allocate', `/storage/${params.storage ?? 'local'}`)]
  return [...guests, ...storages.map((storage) => check('Datastore.AllocateSpace', `/storage/${storage}`)), ...keeper]
}

/** Restoring: reading the backup, and room where the disks go. */
export function toRestore(params: { readonly archive: string; readonly storage?: string | undefined }): Permission[] {
  // Without a storage the disks go where they were, which the caller need not know.
  const place = params.storage === undefined ? '/storage' : `/storage/${params.storage}`
  // A path is a file of the node's, which may be anything.
  const source = params.archive.startsWith('/') ? [rootOnly] : toReadBackup(params.archive)
  return [...source, check('Datastore.AllocateSpace', place)]
}

export function toReadBackup(volume: string): Permission[] {
  return [oneOf(toRead(asVolumeId(volume)))]
}

export function toChangeBackup(volume: string): Permission[] {
  return [oneOf(toChange(asVolumeId(volume)))]
}

function oneOf(alternatives: Alternatives): Permission {
  return any(...alternatives.map((parts) => all(...parts.map(({ path, privilege }) => check(privilege, path)))))
}
