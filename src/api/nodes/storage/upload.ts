/** `/nodes/{node}/storage/{storage}/upload`: files from a client's disk. */
import { enumOf, optional, refine, string } from '#base/schema/schema.ts'
import { nodeName, storageId, upid } from '#base/schema/standard.ts'
import { uploadFile, uploadRequest } from '#operations/storage/upload.ts'
import { check } from '#rest/endpoint.ts'
import { checksumAlgorithms } from '#storage/transfer.ts'
import { endpoint } from '../../call.ts'

const fileContents = ['iso', 'vztmpl', 'import', 'snippets'] as const

export const uploadEndpoints = [
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/storage/{storage}/upload',
    description: 'Upload installation media, a container template, a disk image to import, or a snippet.',
    proxyTo: 'node',
    params: {
      node: nodeName,
      storage: storageId,
      content: enumOf(fileContents, { description: 'What the file is.' }),
      filename: string({ description: 'Name of the file.', minLength: 1, maxLength: 255 }),
      checksum: optional(
        refine(string({ description: 'Expected checksum in hexadecimal.', maxLength: 128 }), {
          requires: 'checksum-algorithm',
        }),
      ),
      'checksum-algorithm': optional(
        enumOf(checksumAlgorithms, { description: 'Kind of checksum.', requires: 'checksum' }),
      ),
      tmpfilename: optional(
        string({
          description: 'Set by the front and the command line: where they have put the file.',
          maxLength: 1024,
        }),
      ),
    },
    permission: check('Datastore.AllocateTemplate', '/storage/{storage}'),
    returns: upid,
    isUpload: true,
    cli: {
      command: ['storage', 'upload'],
      positional: ['storage', 'filename'],
      examples: [
        'storage upload local debian.iso --content iso',
        'storage upload local disk.qcow2 --content import --checksum-algorithm sha256 --checksum 9f86d0…',
      ],
    },
    async handle(params, { services, start }) {
      return start(uploadFile, await uploadRequest(services, params))
    },
  }),
]
