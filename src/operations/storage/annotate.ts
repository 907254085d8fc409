/** Notes and protection of a backup, whether it lies in a datastore or is an archive in a file. */
import type { BackupService } from '#backup/service.ts'
import type { VolumeId } from '#base/ids.ts'
import type { StorageService } from '#storage/service.ts'
import { isForeignArchive } from '../backup/archive-file.ts'

/** @throws Fault `missing`, `invalid` for what is no backup */
export async function annotateBackup(
  deps: { readonly backup: Pick<BackupService, 'annotate'>; readonly storage: Pick<StorageService, 'annotate'> },
  volid: VolumeId,
  change: { readonly notes?: string | undefined; readonly protected?: boolean | undefined },
): Promise<void> {
  if (isForeignArchive(volid)) await deps.storage.annotate(volid, change)
  else await deps.backup.annotate(volid, change)
}
