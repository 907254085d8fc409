/** `/access/domains`: realms users come from. */
import { lastingOptions, realmOptions, realmTypes } from '#access/realm-options.ts'
import { splitList } from '#base/schema/formats.ts'
import { array, boolean, enumOf, nothing, object, optional, record, string } from '#base/schema/schema.ts'
import { configDigest } from '#base/schema/standard.ts'
import { check, checkAny, world } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'

const realm = string({ description: 'Name of the realm.', format: 'pve-realm', maxLength: 32 })
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
    description: 'Delete a realm; its users stay and cannot log in.',
    params: { realm },
    permission: mayChange,
    returns: nothing,
    cli: { command: ['realm', 'delete'], positional: ['realm'], destroys: 'realm' },
    handle: ({ realm: name }, { services }) => services.realms.delete(name).then(() => null),
  }),
]

/** The reply is a record, so nobody turns truths into numbers after us. */
function onWire(value: unknown): unknown {
  return typeof value === 'boolean' ? Number(value) : value
}
