/** `/nodes/{node}/storage/{storage}/download-url`: files from the web. */
import { boolean, enumOf, optional, string } from '#base/schema/schema.ts'
import { nodeName, storageId, upid } from '#base/schema/standard.ts'
import { downloadFile, downloadRequest } from '#operations/storage/download.ts'
import { all, any, check } from '#rest/endpoint.ts'
import { compressions } from '#storage/download.ts'
import { checksumAlgorithms } from '#storage/transfer.ts'
import { endpoint } from '../../call.ts'

export const downloadEndpoints = [
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/storage/{storage}/download-url',
    description:
      'Let the node fetch installation media, a container template or a disk image from the web. Addresses of the node itself are not asked.',
    proxyTo: 'node',
    params: {
      node: nodeName,
      storage: storageId,
      url: string({ description: 'Where the file is.', pattern: /https?:\/\/.*/, maxLength: 4096 }),
      content: enumOf(['iso', 'vztmpl', 'import'], { description: 'What the file is.' }),
      filename: string({ description: 'Name it gets.', minLength: 1, maxLength: 255 }),
      checksum: optional(
        string({
          description: 'Expected checksum of what the server sends, in hexadecimal.',
          maxLength: 128,
          requires: 'checksum-algorithm',
        }),
      ),
      'checksum-algorithm': optional(
        enumOf(checksumAlgorithms, { description: 'Kind of checksum.', requires: 'checksum' }),
      ),
      compression: optional(enumOf(compressions, { description: 'Decompress it on the way.' })),
      'verify-certificates': optional(boolean({ description: 'Refuse servers nobody vouches for.', default: true })),
    },
    permission: all(
      check('Datastore.AllocateTemplate', '/storage/{storage}'),
      any(check(['Sys.Audit', 'Sys.Modify'], '/'), check('Sys.AccessNetwork', '/nodes/{node}')),
    ),
    returns: upid,
    cli: {
      command: ['storage', 'download'],
      positional: ['storage', 'url'],
      examples: [
        'storage download local https://cdimage.debian.org/…/debian-13.iso --content iso --filename debian-13.iso',
        'storage download local https://example.org/disk.qcow2 --content import --filename disk.qcow2 --checksum-algorithm sha256 --checksum 9f86d0…',
      ],
    },
    handle: async (params, { services, start }) => start(downloadFile, await downloadRequest(services.storage, params)),
  }),
]
