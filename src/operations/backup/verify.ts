/**
 * Reads backups again and compares every byte with its digest: one backup, or a whole datastore. Of an archive of another
 * platform what there is to compare.
 */
import { asVolumeId, splitVolumeId } from '#base/ids.ts'
import type { Services } from '#services.ts'
import { operation } from '#tasks/operation.ts'
import { checkArchive } from '#guests/lxc/unpack.ts'
import { isForeignArchive, isOfContainer, openArchive } from './archive-file.ts'
import { archivePath } from './kept-archive.ts'

export type VerifyBackups =
  /** One backup: everything a restore of it would need. */
  | { readonly volume: string }
  /** Every file of a storage's datastore. */
  | { readonly storage: string }

export const verifyBackups = operation<VerifyBackups, Pick<Services, 'backup' | 'clock' | 'storage'>>('hakoverify', {
  id: (params) => ('storage' in params ? params.storage : splitVolumeId(asVolumeId(params.volume)).storage),
}).step('verify', {
  async do({ params, deps, log, progress, signal }) {
    const onProgress = (fraction: number, bytes?: number) => progress('verify', fraction, bytes)
    if ('volume' in params && isForeignArchive(params.volume) && isOfContainer(params.volume)) {
      const { entries, bytes } = await checkArchive(await archivePath(deps.storage, params.volume), {
        signal,
        onProgress,
      })
      log(`${params.volume}: ${entries} files, ${bytes} bytes can be read; without a checksum of each`)
    } else if ('volume' in params && isForeignArchive(params.volume)) {
      await using open = await openArchive(deps.storage, params.volume)
      await open.reader.verify({ clock: deps.clock, signal, onProgress })
      const what = open.isGuarded ? 'it is whole' : 'its headers are whole; the content of its disks has no checksum'
      log(`${params.volume}: ${what}`)
    } else if ('volume' in params) {
      const { chunks, bytes } = await deps.backup.verify(asVolumeId(params.volume), { signal, onProgress })
      log(`${params.volume}: ${chunks} chunks, ${bytes} bytes match their digests`)
    } else {
      const { backups, packs, mended } = await deps.backup.verifyAll(params.storage, { signal, onProgress })
      for (const damage of mended) log(`${damage}; it is mended from the packs`)
      log(`storage '${params.storage}': ${backups} backups and ${packs} packs are whole`)
    }
  },
})
