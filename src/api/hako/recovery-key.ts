/** Our own branch: the key on paper that opens every datastore of this node, whatever becomes of the node. */
import { invalid } from '#base/fault.ts'
import { array, boolean, enumOf, integer, nothing, object, optional, refine, string } from '#base/schema/schema.ts'
import { nodeName } from '#base/schema/standard.ts'
import { confirmRecoveryKey } from '#operations/backup/recovery-key.ts'
import { openedByNode, useRecoveryKey } from '#operations/backup/use-recovery-key.ts'
import { check, rootOnly } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'

const fingerprint = string({ description: 'Tells one recovery key from another, and nothing about it.' })
const ownFingerprint = string({ description: 'Tells one key of the node from another, and nothing about it.' })
const storage = string({ description: 'Where the datastore is.' })

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
  endpoint({
    method: 'GET',
    path: '/hako/node-key',
    description: 'The key of its own by which this node opens its datastores, and which of them it opens.',
    params: {},
    permission: check('Sys.Audit', '/'),
    returns: object({
      fingerprint: optional(ownFingerprint),
      storages: array(
        object({
          storage,
          opens: boolean({ description: 'By the key of the node alone.' }),
          'key-number': optional(
            integer({ description: 'Which key new things in it are sealed with; a key taken away makes it another.' }),
          ),
          reason: optional(string({ description: 'Why it does not open.' })),
        }),
      ),
    }),
    isOwn: true,
    cli: { command: ['node-key', 'status'], examples: ['node-key status', 'node-key status -o json'] },
    handle: (_, { services }) => openedByNode(services),
  }),
  endpoint({
    method: 'PUT',
    path: '/hako/node-key',
    description:
      'Give the node a key of its own by showing the recovery key, when its key was lost, or may be in wrong hands.',
    params: {
      key: string({ description: 'The recovery key, as it was printed.', maxLength: 256, isSecret: true }),
      replace: optional(
        boolean({ description: 'Another one even if the node has a good one: its copy may be abroad.' }),
      ),
    },
    permission: rootOnly,
    returns: object({
      fingerprint: ownFingerprint,
      storages: array(string({ description: 'The node opens its datastore.' })),
      later: array(
        object({ storage, reason: string({ description: 'Why the node does not open it yet; the same again does.' }) }),
      ),
      forgotten: integer({ description: 'How many keys the node had before open a datastore no longer.' }),
    }),
    isOwn: true,
    cli: {
      command: ['recovery-key', 'use'],
      examples: ['recovery-key use --key - <recovery.txt', 'recovery-key use --key - --replace <recovery.txt'],
    },
    handle: ({ key, replace = false }, { services }) => useRecoveryKey(services, key, { replaces: replace }),
  }),
  endpoint({
    method: 'DELETE',
    path: '/hako/node-key',
    description:
      'Take the key of the node away, to rehearse its loss or to give the node away: no datastore opens until somebody shows the recovery key.',
    params: { node: refine(nodeName, { description: 'Name of this node, so that no other is meant.' }) },
    permission: rootOnly,
    returns: nothing,
    isOwn: true,
    cli: {
      command: ['node-key', 'remove'],
      positional: ['node'],
      destroys: 'node',
      examples: ['node-key remove pve1 --confirm pve1'],
    },
    async handle({ node }, { services }) {
      if (node !== services.settings.node) throw invalid({ node: `this node is '${services.settings.node}'` })
      await services.nodeKeys.forgetOwn()
      return null
    },
  }),
]
