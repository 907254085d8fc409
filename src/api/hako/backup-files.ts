/** `/hako/backup-files`: the files in a backup, listed and fetched without restoring it. */
import { asVolumeId } from '#base/ids.ts'
import { array, enumOf, optional, string } from '#base/schema/schema.ts'
import { volumeId } from '#base/schema/standard.ts'
import { anyone, Streamed } from '#rest/endpoint.ts'
import { fetchFile, fileItem, fileItemOf, filesAt } from '#views/backup-files.ts'
import { endpoint } from '../call.ts'
import { toReadBackup } from '../nodes/backup-rights.ts'

const inside = (description: string) => string({ description, pattern: /[^\0]+/, maxLength: 4_000 })
const alsoNeeds = {
  says: 'Datastore.Allocate on the storage, or Datastore.AllocateSpace there with VM.Backup on the guest',
  of: ({ volume }: { readonly volume: string }) => toReadBackup(volume),
}
/** As the view has paths: each character a byte. */
const bytesOf = (path: string) => Buffer.from(path).toString('latin1')

export const backupFileEndpoints = [
  endpoint({
    method: 'GET',
    path: '/hako/backup-files/{volume*}',
    description: 'What is in a folder of a backup.',
    params: { volume: volumeId, path: optional({ ...inside('Folder inside; the root when absent.'), default: '/' }) },
    permission: anyone,
    alsoNeeds,
    returns: array(fileItem),
    isOwn: true,
    cli: {
      command: ['backup', 'files'],
      positional: ['volume', 'path'],
      columns: ['mode', 'uid', 'gid', 'size', 'mtime', 'name', 'target'],
      id: 'path',
      examples: [
        'backup files local:backup/ct/200/2026-01-01T00:00:00Z',
        'backup files local:backup/ct/200/2026-01-01T00:00:00Z /etc -o json',
        'backup files local:backup/vm/100/2026-01-01T00:00:00Z /scsi0/part/1/etc',
      ],
    },
    handle: async ({ volume, path = '/' }, { services }) =>
      (await filesAt(services, asVolumeId(volume), bytesOf(path))).map(fileItemOf),
  }),
  endpoint({
    method: 'GET',
    path: '/hako/backup-file/{volume*}',
    description: 'A file of a backup as it is, or a folder as an archive.',
    params: {
      volume: volumeId,
      path: inside('File or folder inside.'),
      form: optional(
        enumOf(['tar', 'tar.zst', 'zip'], { description: 'Form of the archive of a folder.', default: 'tar' }),
      ),
    },
    permission: anyone,
    alsoNeeds,
    returns: string({ description: 'The bytes themselves, and nothing else.' }),
    isOwn: true,
    isStreamed: true,
    cli: {
      command: ['backup', 'get'],
      positional: ['volume', 'path', 'to'],
      saves: { from: 'path', to: 'to' },
      examples: [
        'backup get local:backup/ct/200/2026-01-01T00:00:00Z /etc/hosts',
        'backup get local:backup/ct/200/2026-01-01T00:00:00Z /srv/www www.tar',
        'backup get local:backup/vm/100/2026-01-01T00:00:00Z /scsi0/part/1/etc/hosts',
        'backup get local:backup/ct/200/2026-01-01T00:00:00Z /var/log/syslog - | grep error',
      ],
    },
    async handle({ volume, path, form = 'tar' }, { services }) {
      const wish = { path: bytesOf(path), form }
      const { fileName, bytes, sizeBytes } = await fetchFile(services, asVolumeId(volume), wish)
      return new Streamed(fileName, bytes, sizeBytes)
    },
  }),
]
