/** `/storage`: which storages are configured. */
import { splitList } from '#base/schema/formats.ts'
import { array, nothing, object, optional, string } from '#base/schema/schema.ts'
import { configDigest, storageId } from '#base/schema/standard.ts'
import { anyone, check } from '#rest/endpoint.ts'
import { commonOptions, storageType } from '#storage/config.ts'
import { configToWire, pluginOptions, storageReply } from '#storage/wire.ts'
import { visibleStorages } from '#views/storage-list.ts'
import { endpoint } from '../call.ts'

/** Another place is another storage. */
const { path: _, bucket: __, prefix: ___, datastore: ____, ...changeable } = pluginOptions
const named = object({ storage: storageId, type: storageType })

export const storageEndpoints = [
  endpoint({
    method: 'GET',
    path: '/storage',
    description: 'Configured storages the caller may use.',
    params: { type: optional(storageType) },
    permission: anyone,
    returns: array(storageReply),
    isKept: true,
    async handle({ type }, { services, may }) {
      return (await visibleStorages(services.storage, type, may)).map(configToWire)
    },
  }),
  endpoint({
    method: 'POST',
    path: '/storage',
    description: 'Configure a storage and make its place ready.',
    params: { storage: storageId, type: storageType, ...commonOptions, ...pluginOptions },
    permission: check('Datastore.Allocate', '/storage'),
    returns: named,
    cli: {
      command: ['storage', 'add'],
      positional: ['storage'],
      examples: [
        'storage add fast --type dir --path /srv/fast --content images,iso,backup',
        'storage add tank --type btrfs --path /mnt/tank',
        'storage add offsite --type s3 --bucket backups --endpoint https://s3.example.org --access-key hako --secret-key - <secret.txt',
        'storage add other --type hakobune --server backup.example.org --datastore site --password - <token.txt',
      ],
    },
    async handle(params, { services }) {
      const { name, type } = await services.storage.create(params)
      return { storage: name, type }
    },
  }),
  endpoint({
    method: 'GET',
    path: '/storage/{storage}',
    description: 'Configuration of a storage.',
    params: { storage: storageId },
    permission: check('Datastore.Allocate', '/storage/{storage}'),
    returns: storageReply,
    cli: { command: ['storage', 'show'], positional: ['storage'], examples: ['storage show local -o yaml'] },
    isKept: true,
    async handle({ storage }, { services }) {
      return configToWire(await services.storage.get(storage))
    },
  }),
  endpoint({
    method: 'PUT',
    path: '/storage/{storage}',
    description: 'Change the configuration of a storage.',
    params: {
      storage: storageId,
      ...commonOptions,
      ...changeable,
      delete: optional(
        string({ description: 'Options to return to their default.', format: 'pve-configid-list', maxLength: 4096 }),
      ),
      digest: optional(configDigest),
    },
    permission: check('Datastore.Allocate', '/storage'),
    returns: named,
    cli: {
      command: ['storage', 'set'],
      positional: ['storage'],
      examples: ['storage set local --content images,iso,backup,snippets'],
    },
    async handle({ storage, delete: remove, digest, ...set }, { services }) {
      const { name, type } = await services.storage.update(storage, { set, remove: splitList(remove ?? ''), digest })
      return { storage: name, type }
    },
  }),
  endpoint({
    method: 'DELETE',
    path: '/storage/{storage}',
    description:
      'Forget a storage. What lies in it stays there; guests with disks on it do not start until it is configured again. Every node has `local`: removed, it is as a new node has it.',
    params: { storage: storageId },
    permission: check('Datastore.Allocate', '/storage'),
    returns: nothing,
    cli: {
      command: ['storage', 'remove'],
      positional: ['storage'],
      destroys: 'storage',
      examples: ['storage remove fast --confirm fast'],
    },
    async handle({ storage }, { services }) {
      await services.storage.delete(storage)
      await services.datastoreJobs.forgetStorage(storage)
      return null
    },
  }),
]
