/** Our own branch: the key on paper that opens every datastore of this node, whatever becomes of the node. */
import { array, boolean, enumOf, integer, object, optional, string } from '#base/schema/schema.ts'
import { confirmRecoveryKey } from '#operations/backup/recovery-key.ts'
import { check, rootOnly } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'

const fingerprint = string({ description: 'Tells one recovery key from another, and nothing about it.' })

export const recoveryKeyEndpoints = [
  endpoint({
    method: 'GET',
    path: '/hako/recovery-key',
    description: 'Whether somebody holds the recovery key of this node; nothing is backed up before.',
    params: {},
    permission: check('Sys.Audit', '/'),
    returns: object({
      state: enumOf(['none', 'unconfirmed', 'confirmed'], { description: 'Backups are made when it is confirmed.' }),
      created: optional(integer({ description: 'When it was made, in seconds since 1970.' })),
      fingerprint: optional(fingerprint),
      pending: optional(
        string({ description: 'Fingerprint of one that takes its place once it is confirmed.', maxLength: 64 }),
      ),
    }),
    isOwn: true,
    cli: { command: ['recovery-key', 'status'], examples: ['recovery-key status', 'recovery-key status -o json'] },
    handle: (_, { services }) => services.nodeKeys.status(),
  }),
  endpoint({
    method: 'POST',
    path: '/hako/recovery-key',
    description: 'Make a recovery key. It is in the reply and nowhere else, and counts once it is confirmed.',
    params: {
      replace: optional(boolean({ description: 'In the place of the one that is confirmed, which holds until then.' })),
    },
    permission: rootOnly,
    returns: object({
      key: string({ description: 'The recovery key: write it down, and keep it elsewhere.' }),
      fingerprint,
    }),
    isOwn: true,
    cli: { command: ['recovery-key', 'create'], examples: ['recovery-key create', 'recovery-key create --replace'] },
    handle: ({ replace = false }, { services }) => services.nodeKeys.create({ replaces: replace }),
  }),
  endpoint({
    method: 'PUT',
    path: '/hako/recovery-key',
    description: 'Show that you hold the recovery key: from then on it, and none before it, opens the datastores.',
    params: { key: string({ description: 'As it was printed.', maxLength: 256, isSecret: true }) },
    permission: rootOnly,
    returns: object({
      fingerprint,
      storages: array(string({ description: 'Its datastore opens by the key now.' })),
      later: array(
        object({
          storage: string({ description: 'It follows as soon as it is opened again.' }),
          reason: string({ description: 'Why it did not yet.' }),
        }),
      ),
    }),
    isOwn: true,
    cli: { command: ['recovery-key', 'confirm'], examples: ['recovery-key confirm --key - <recovery.txt'] },
    handle: ({ key }, { services }) => confirmRecoveryKey(services, key),
  }),
]
