/** Our own branch: datastores of the node's storages, as a whole. */
import { array, enumOf, nothing, object, optional, refine, string } from '#base/schema/schema.ts'
import { storageId, upid } from '#base/schema/standard.ts'
import { collectSpace } from '#operations/backup/collect.ts'
import { takeOverBackups } from '#operations/backup/take-over.ts'
import { anyone, check, rootOnly } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'

export const datastoreEndpoints = [
  endpoint({
    method: 'GET',
    path: '/hako/datastore',
    description: 'What can be done with the datastore of a storage.',
    params: {},
    permission: anyone,
    returns: array(object({ name: string() })),
    isOwn: true,
    handle: () => [{ name: 'attach' }, { name: 'collect' }, { name: 'take-over' }],
  }),
  endpoint({
    method: 'POST',
    path: '/hako/datastore/attach',
    description: 'Give this node its ways into a datastore that was made elsewhere.',
    params: {
      storage: refine(storageId, { description: 'Where the datastore is.' }),
      by: optional(enumOf(['passphrase', 'recovery'], { description: 'What the secret is; recovery when absent.' })),
      secret: string({ description: 'What opens it now; not kept.', maxLength: 1024, isSecret: true }),
    },
    permission: rootOnly,
    returns: nothing,
    isOwn: true,
    cli: {
      command: ['backup', 'attach'],
      positional: ['storage'],
      examples: ['backup attach usb --secret - <recovery.txt', 'backup attach usb --by passphrase'],
    },
    async handle({ storage, by, secret }, { services }) {
      const isPassphrase = by === 'passphrase'
      const way = isPassphrase ? { kind: by, passphrase: secret } : ({ kind: 'recovery', text: secret } as const)
      await services.backup.attach(storage, way)
      return null
    },
  }),
  endpoint({
    method: 'POST',
    path: '/hako/datastore/collect',
    description: 'Give back the space no backup on a storage needs; the node does so by itself as well.',
    params: { storage: storageId },
    permission: check('Datastore.Allocate', '/storage/{storage}'),
    returns: upid,
    isOwn: true,
    cli: { command: ['backup', 'collect'], positional: ['storage'], examples: ['backup collect local'] },
    handle: ({ storage }, { start }) => start(collectSpace, { storage }),
  }),
  endpoint({
    method: 'POST',
    path: '/hako/datastore/take-over',
    description: 'Take the backups of a datastore of the first format over into an encrypted one; what is there stays.',
    params: { storage: storageId },
    permission: check('Datastore.Allocate', '/storage/{storage}'),
    returns: upid,
    isOwn: true,
    cli: { command: ['backup', 'take-over'], positional: ['storage'], examples: ['backup take-over local'] },
    handle: ({ storage }, { start }) => start(takeOverBackups, { storage }),
  }),
]
