/** `/hako/containers/{node}/{vmid}/file` and `files`: files of a container, in and out. */
import { posix } from 'node:path'
import { KiB } from '#base/bytes.ts'
import { asVmid } from '#base/ids.ts'
import { array, boolean, integer, object, optional, string } from '#base/schema/schema.ts'
import { nodeName, upid, vmid } from '#base/schema/standard.ts'
import { pushFile } from '#operations/guest/push-file.ts'
import { spooledUpload } from '#operations/spooled-upload.ts'
import { checkAny, Reply, Streamed } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'

const at = { node: nodeName, vmid }
const inside = (description: string) =>
  string({ description, pattern: /\/[^\0]*/, minLength: 1, maxLength: 4 * KiB - 96 })
const unrestricted = 'VM.GuestAgent.Unrestricted'
const mayRead = checkAny(['VM.GuestAgent.FileRead', unrestricted], '/vms/{vmid}')
const mayWrite = checkAny(['VM.GuestAgent.FileWrite', unrestricted], '/vms/{vmid}')
const ownerId = (description: string) => optional(integer({ description, minimum: 0, maximum: 2 ** 32 - 2 }))

export const containerFileEndpoints = [
  endpoint({
    method: 'GET',
    path: '/hako/containers/{node}/{vmid}/file',
    description: 'Read a file of a container, as its root, of any size; or a folder as an archive.',
    proxyTo: 'node',
    params: {
      ...at,
      path: inside('File or folder inside.'),
      archive: optional(
        boolean({ description: 'A tar archive of the file or folder, packed inside, which must run.', default: false }),
      ),
    },
    permission: mayRead,
    returns: string({ description: 'The bytes themselves, and nothing else.' }),
    isOwn: true,
    isStreamed: true,
    cli: {
      command: ['ct', 'file', 'pull'],
      positional: ['vmid', 'path', 'to'],
      saves: { from: 'path', to: 'to' },
      examples: [
        'ct file pull 200 /etc/hosts',
        'ct file pull 200 /etc/hosts hosts-of-200',
        'ct file pull 200 /var/www --archive 1 www.tar',
        'ct file pull 200 /var/log/syslog - | grep error',
      ],
    },
    async handle({ vmid: id, path, archive }, { services, signal }) {
      const { files } = services.guests
      const name = posix.basename(path) || 'root'
      if (archive === true) return new Streamed(`${name}.tar`, await files.pack(asVmid(id), path, signal))
      const { facts, bytes } = await files.read(asVmid(id), path, signal)
      return new Streamed(name, bytes, facts.sizeBytes)
    },
  }),
  endpoint({
    method: 'POST',
    path: '/hako/containers/{node}/{vmid}/file',
    description: 'Bring a file into a container, in place of the one that is there; or unpack an archive in a folder.',
    proxyTo: 'node',
    params: {
      ...at,
      path: inside('File inside; a folder when it ends with / or an archive is unpacked.'),
      mode: optional(
        string({
          description: 'Its mode; else that of the file it replaces, or 0644.',
          pattern: /[0-7]{3,4}/,
          maxLength: 4,
        }),
      ),
      uid: ownerId('Its owner inside; else that of the file it replaces, or root.'),
      gid: ownerId('Its group inside; else that of the file it replaces, or root.'),
      parents: optional(boolean({ description: 'Make the folders on the way.', default: false })),
      archive: optional(
        boolean({ description: 'The file is a tar archive, to be unpacked inside, which must run.', default: false }),
      ),
      filename: string({ description: 'Name of the file.', minLength: 1, maxLength: 255 }),
      tmpfilename: optional(
        string({
          description: 'Set by the front and the command line: where they have put the file.',
          maxLength: 1024,
        }),
      ),
    },
    permission: mayWrite,
    returns: upid,
    isOwn: true,
    isUpload: true,
    cli: {
      command: ['ct', 'file', 'push'],
      positional: ['vmid', 'filename', 'path'],
      examples: [
        'ct file push 200 site.conf /etc/nginx/conf.d/',
        'ct file push 200 deploy.sh /usr/local/bin/deploy --mode 0755',
        'ct file push 200 www.tar /var/www --archive 1',
      ],
    },
    async handle({ vmid: id, path, mode, filename, archive, tmpfilename, ...rest }, { services, start }) {
      await services.guests.config(asVmid(id), 'lxc')
      const spooled = spooledUpload(services.settings, tmpfilename)
      const isFolder = path.endsWith('/') && archive !== true
      const { uid, gid, parents } = rest
      return start(pushFile, {
        vmid: id,
        path: isFolder ? `${path}${posix.basename(filename)}` : path,
        spooled,
        isArchive: archive,
        uid,
        gid,
        parents,
        ...(mode === undefined ? {} : { mode: Number.parseInt(mode, 8) }),
      })
    },
  }),
  endpoint({
    method: 'GET',
    path: '/hako/containers/{node}/{vmid}/files',
    description: 'What is in a folder of a container, as its root sees it.',
    proxyTo: 'node',
    params: { ...at, path: inside('Folder inside.') },
    permission: mayRead,
    returns: array(
      object({
        name: string({ description: 'Name.' }),
        type: string({ description: 'file, folder, link, pipe, socket or device.' }),
        mode: string({ description: 'Its mode.' }),
        uid: integer({ description: 'Its owner inside.' }),
        gid: integer({ description: 'Its group inside.' }),
        size: integer({ description: 'Bytes.' }),
        mtime: integer({ description: 'When its content changed last.' }),
        target: optional(string({ description: 'Where a link leads.' })),
      }),
    ),
    isOwn: true,
    cli: {
      command: ['ct', 'file', 'list'],
      positional: ['vmid', 'path'],
      columns: ['mode', 'uid', 'gid', 'size', 'mtime', 'name', 'target'],
      id: 'name',
      examples: ['ct file list 200 /etc', 'ct file list 200 /var/log -o json'],
    },
    async handle({ vmid: id, path }, { services, signal }) {
      const { entries, isWhole } = await services.guests.files.list(asVmid(id), path, signal)
      const more = `only the first ${entries.length} are listed`
      return new Reply([...entries], isWhole ? { total: entries.length } : { total: entries.length, changes: more })
    },
  }),
]
