/** `/nodes/{node}/storage/{storage}/file-restore`: files out of a backup, without restoring it. */
import { anything, array, boolean, object, optional, string } from '#base/schema/schema.ts'
import { nodeName, storageId } from '#base/schema/standard.ts'
import { volumeAt } from '#storage/volume.ts'
import { anyone, Streamed } from '#rest/endpoint.ts'
import { fetchFile } from '#views/backup-files.ts'
import { listedAt, pathMeant, restoreItem } from '#views/file-restore.ts'
import { endpoint } from '../../call.ts'
import { toReadBackup } from '../backup-rights.ts'

const params = {
  node: nodeName,
  storage: storageId,
  volume: string({ description: 'Volume id of the backup, or its name in the storage.', maxLength: 1024 }),
  filepath: string({
    description: 'Path in base64, as the list gives it; / is the list of archives.',
    maxLength: 5_600,
  }),
}
const alsoNeeds = {
  says: 'Datastore.Allocate on the storage, or Datastore.AllocateSpace there with VM.Backup on the guest',
  of: ({ storage, volume }: { readonly storage: string; readonly volume: string }) =>
    toReadBackup(volumeAt(storage, volume)),
}

export const fileRestoreEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/storage/{storage}/file-restore',
    description: 'What is below this path.',
    proxyTo: 'node',
    params: { node: nodeName, storage: storageId },
    permission: anyone,
    returns: array(object({ subdir: string() })),
    isOwn: true,
    handle: () => [{ subdir: 'download' }, { subdir: 'list' }],
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/storage/{storage}/file-restore/list',
    description: 'What is in a folder of a backup.',
    proxyTo: 'node',
    params,
    permission: anyone,
    alsoNeeds,
    returns: array(restoreItem),
    handle: ({ storage, volume, filepath }, { services }) => listedAt(services, volumeAt(storage, volume), filepath),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/storage/{storage}/file-restore/download',
    description: 'A file of a backup as it is, or a folder as an archive.',
    proxyTo: 'node',
    params: {
      ...params,
      tar: optional(boolean({ description: 'A folder comes as tar.zst instead of zip.', default: false })),
    },
    permission: anyone,
    alsoNeeds,
    returns: anything,
    isStreamed: true,
    async handle({ storage, volume, filepath, tar }, { services }) {
      const path = pathMeant(filepath) ?? '/'
      const form = tar === true ? 'tar.zst' : 'zip'
      const { fileName, bytes, sizeBytes } = await fetchFile(services, volumeAt(storage, volume), { path, form })
      return new Streamed(fileName, bytes, sizeBytes)
    },
  }),
]
