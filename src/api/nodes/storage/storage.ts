/** `/nodes/{node}/storage`: storages as one node has them. */
import { array, boolean, object, optional, refine, string } from '#base/schema/schema.ts'
import { nodeName, storageId } from '#base/schema/standard.ts'
import { anyone, checkAny } from '#rest/endpoint.ts'
import { nodeStorages, storageItem, storageState, storageStatus } from '#views/storage-list.ts'
import { endpoint } from '../../call.ts'

export const mayLook = checkAny(['Datastore.Audit', 'Datastore.AllocateSpace'], '/storage/{storage}')

export const nodeStorageEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/storage',
    description: 'Storages of the node with their room, as far as the caller may use them.',
    proxyTo: 'node',
    params: {
      node: nodeName,
      content: optional(
        string({
          description: 'Only those that hold one of these.',
          format: 'pve-storage-content-list',
          maxLength: 256,
        }),
      ),
      enabled: optional(boolean({ description: 'Only those that are enabled.', default: false })),
      storage: optional(refine(storageId, { description: 'Only this one.' })),
      target: optional(refine(nodeName, { description: 'Only those this other node has too.' })),
      format: optional(boolean({ description: 'Say which formats of images each holds.', default: false })),
    },
    permission: anyone,
    returns: array(storageItem),
    cli: {
      command: ['storage', 'list'],
      columns: ['storage', 'type', 'active', 'content', 'used', 'avail', 'total', 'used_fraction'],
      id: 'storage',
      examples: ['storage list', 'storage list --content backup -o id'],
    },
    handle: (params, { services, may }) => nodeStorages(services.storage, params, may),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/storage/{storage}',
    description: 'What there is below a storage.',
    params: { node: nodeName, storage: storageId },
    permission: mayLook,
    returns: array(object({ subdir: string({ description: 'Name of the branch.' }) })),
    handle: () =>
      [
        'content',
        'download-url',
        'file-restore',
        'identity',
        'import-metadata',
        'oci-registry-pull',
        'prunebackups',
        'rrd',
        'rrddata',
        'status',
        'upload',
      ].map((subdir) => ({ subdir })),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/storage/{storage}/status',
    description: 'State and room of a storage.',
    proxyTo: 'node',
    params: { node: nodeName, storage: storageId },
    permission: mayLook,
    returns: storageState,
    cli: { command: ['storage', 'status'], positional: ['storage'], examples: ['storage status local'] },
    handle: ({ storage }, { services }) => storageStatus(services.storage, storage),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/storage/{storage}/identity',
    description: 'What tells the place of a storage from others: two storages in one place have the same.',
    proxyTo: 'node',
    params: { node: nodeName, storage: storageId },
    permission: mayLook,
    returns: object({ id: string({ description: 'The place.' }), type: string({ description: 'Kind of storage.' }) }),
    handle: ({ storage }, { services }) => services.storage.identity(storage),
  }),
]
