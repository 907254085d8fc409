/** `/access/domains`: realms users come from. */
import { lastingOptions, realmOptions, realmTypes, syncScopes, vanishedPattern } from '#access/realm-options.ts'
import { syncOptions } from '#access/realm-sync.ts'
import { directoryOf } from '#access/realms/directory.ts'
import { splitList } from '#base/schema/formats.ts'
import { array, boolean, enumOf, nothing, object, optional, record, string } from '#base/schema/schema.ts'
import { configDigest } from '#base/schema/standard.ts'
import { syncRealm, testRealmSync } from '#operations/access/sync-realm.ts'
import { all, check, checkAny, world } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'

const realm = string({ description: 'Name of the realm.', format: 'pve-realm', maxLength: 32 })
/** What a synchronization is asked for, once or as a job. */
export const syncParams = {
  'enable-new': optional(boolean({ description: 'New users may log in.', default: true })),
  'remove-vanished': optional(
    string({
      description: 'What goes with those the directory does not name any more: `entry`, `acl`, `properties`.',
      pattern: vanishedPattern,
      default: 'none',
      maxLength: 64,
    }),
  ),
  scope: optional(enumOf(syncScopes, { description: 'What to synchronize; as the realm says when it is not given.' })),
}
const mayChange = check('Realm.Allocate', '/access/realm')

export const domainEndpoints = [
  endpoint({
    method: 'GET',
    path: '/access/domains',
    description: 'Realms a user can log in to; shown before the login.',
    params: {},
    permission: world,
    returns: array(
      object({
        realm: string(),
        type: string(),
        comment: optional(string()),
        default: optional(boolean()),
        tfa: optional(enumOf(['yubico', 'oath'])),
      }),
    ),
    cli: { command: ['realm', 'list'], columns: ['realm', 'type', 'default', 'tfa', 'comment'], id: 'realm' },
    handle: (_, { services }) => services.realms.list(),
  }),
  endpoint({
    method: 'POST',
    path: '/access/domains',
    description: 'Configure a realm of a directory or an OpenID provider.',
    params: {
      realm,
      type: enumOf(realmTypes, { description: 'Kind of realm.' }),
      ...realmOptions,
      ...lastingOptions,
    },
    permission: mayChange,
    returns: nothing,
    cli: {
      command: ['realm', 'add'],
      positional: ['realm'],
      examples: [
        'realm add office --type ldap --server1 ldap.example.org --base_dn dc=example,dc=org --user_attr uid --mode ldaps',
        'realm add web --type openid --issuer-url https://id.example.org --client-id hakobune --username-claim email --autocreate',
      ],
    },
    handle: ({ realm: name, type, ...given }, { services }) =>
      services.realms.create(name, type, given).then(() => null),
  }),
  endpoint({
    method: 'GET',
    path: '/access/domains/{realm}',
    description: 'Configuration of a realm, without its secrets.',
    params: { realm },
    permission: checkAny(['Realm.Allocate', 'Sys.Audit'], '/access/realm'),
    returns: record({ description: 'Options that are set, `type` and `digest`.' }),
    cli: { command: ['realm', 'show'], positional: ['realm'] },
    async handle({ realm: name }, { services }) {
      const { type, options, digest } = await services.realms.get(name)
      const told = Object.entries(options).map(([option, value]) => [option, onWire(value)] as const)
      return { ...Object.fromEntries(told), type, digest }
    },
  }),
  endpoint({
    method: 'PUT',
    path: '/access/domains/{realm}',
    description: 'Change the configuration of a realm.',
    params: {
      realm,
      ...realmOptions,
      delete: optional(
        string({ description: 'Options to return to their default.', format: 'pve-configid-list', maxLength: 4096 }),
      ),
      digest: optional(configDigest),
    },
    permission: mayChange,
    returns: nothing,
    cli: { command: ['realm', 'set'], positional: ['realm'], examples: ['realm set pve --default 1'] },
    handle: ({ realm: name, delete: remove, digest, ...set }, { services }) =>
      services.realms.update(name, { set, remove: splitList(remove ?? ''), digest }).then(() => null),
  }),
  endpoint({
    method: 'DELETE',
    path: '/access/domains/{realm}',
    description: 'Delete a realm with the jobs that synchronize it; its users stay and cannot log in.',
    params: { realm },
    permission: mayChange,
    returns: nothing,
    cli: { command: ['realm', 'delete'], positional: ['realm'], destroys: 'realm' },
    async handle({ realm: name }, { services }) {
      await services.realms.delete(name)
      await services.realmSyncJobs.forgetRealm(name)
      return null
    },
  }),
  endpoint({
    method: 'POST',
    path: '/access/domains/{realm}/sync',
    description: 'Make users and groups of a realm what its directory says.',
    params: {
      realm,
      'dry-run': optional(boolean({ description: 'Only say what would be done.', default: false })),
      ...syncParams,
      full: optional(boolean({ description: 'Older spelling of remove-vanished `entry;properties`.' })),
      purge: optional(boolean({ description: 'Older spelling of remove-vanished `acl`.' })),
    },
    permission: all(check('Realm.AllocateUser', '/access/realm/{realm}'), check('User.Modify', '/access/groups')),
    returns: string({ description: 'Identifier of the task.' }),
    cli: {
      command: ['realm', 'sync'],
      positional: ['realm'],
      examples: ['realm sync office --scope both --dry-run', 'realm sync office --scope users --remove-vanished entry'],
    },
    async handle({ 'dry-run': isDry = false, ...params }, { services, start }) {
      const { type, options } = await services.realms.get(params.realm)
      directoryOf({ type, options }, undefined)
      syncOptions(params, options['sync-defaults-options'])
      return start(isDry ? testRealmSync : syncRealm, params)
    },
  }),
]

/** The reply is a record, so nobody turns truths into numbers after us. */
function onWire(value: unknown): unknown {
  return typeof value === 'boolean' ? Number(value) : value
}
