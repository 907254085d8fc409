/** `/cluster/acme`: accounts at servers that sign certificates (ACME), and what is known of such servers. */
import { splitList } from '#base/schema/formats.ts'
import { array, boolean, object, optional, record, string } from '#base/schema/schema.ts'
import { upid } from '#base/schema/standard.ts'
import { defaultDirectory, directories } from '#cluster/acme/directory.ts'
import { dnsInterfaces } from '#cluster/acme/plugins.ts'
import { deactivateAccount, registerAccount, updateAccount } from '#operations/acme/account.ts'
import { anyone, check, rootOnly } from '#rest/endpoint.ts'
import { askDirectory } from '#views/acme-directory.ts'
import { endpoint } from '../call.ts'

const url = /https?:\/\/.*/
const directory = optional(
  string({
    description: 'Address of the directory of the ACME server.',
    pattern: url,
    default: defaultDirectory,
    maxLength: 2048,
  }),
)
const accountName = string({ description: 'Name of the account.', format: 'pve-configid', maxLength: 64 })
const contact = string({
  description: 'Mail addresses the server may write to.',
  format: 'email-list',
  maxLength: 4096,
})
export const acmeEndpoints = [
  endpoint({
    method: 'GET',
    path: '/cluster/acme',
    description: 'What there is to ask about ACME.',
    params: {},
    permission: anyone,
    returns: array(object({ name: string({ description: 'Name.' }) })),
    handle: () => ['account', 'challenge-schema', 'directories', 'meta', 'plugins', 'tos'].map((name) => ({ name })),
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/acme/account',
    description: 'Accounts at ACME servers.',
    params: {},
    permission: anyone,
    returns: array(object({ name: accountName })),
    cli: { command: ['acme', 'account', 'list'], columns: ['name'], id: 'name' },
    handle: async (_, { services }) => (await services.acmeAccounts.names()).map((name) => ({ name })),
  }),
  endpoint({
    method: 'POST',
    path: '/cluster/acme/account',
    description: 'Register at an ACME server.',
    params: {
      name: optional({ ...accountName, default: 'default' }),
      contact,
      directory,
      tos_url: optional(
        string({ description: 'Address of the terms; giving it means to agree to them.', maxLength: 2048 }),
      ),
      'eab-kid': optional(
        string({ description: 'Name the server knows one by already.', requires: 'eab-hmac-key', maxLength: 1024 }),
      ),
      'eab-hmac-key': optional(
        string({ description: 'Secret that belongs to it.', requires: 'eab-kid', maxLength: 1024, isSecret: true }),
      ),
    },
    permission: rootOnly,
    returns: upid,
    cli: {
      command: ['acme', 'account', 'register'],
      positional: ['name', 'contact'],
      examples: ['acme account register default admin@example.org --tos_url https://letsencrypt.org/repository/'],
    },
    handle: (params, call) =>
      call.start(registerAccount, {
        name: params.name ?? 'default',
        contact: splitList(params.contact),
        directory: params.directory ?? defaultDirectory,
        tos: params.tos_url,
        eabKid: params['eab-kid'],
        eabHmacKey: params['eab-hmac-key'],
      }),
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/acme/account/{name}',
    description: 'An account at an ACME server.',
    params: { name: accountName },
    permission: rootOnly,
    returns: object({
      account: record({ description: 'What the server was told.' }),
      directory: string({ description: 'Directory of the server.' }),
      location: string({ description: 'Where the account is.' }),
      tos: optional(string({ description: 'Terms that were agreed to.' })),
    }),
    cli: { command: ['acme', 'account', 'show'], positional: ['name'] },
    async handle({ name }, { services }) {
      const { contact: addresses, ...account } = await services.acmeAccounts.get(name)
      return { ...account, account: { contact: addresses.map((one) => `mailto:${one}`), status: 'valid' } }
    },
  }),
  endpoint({
    method: 'PUT',
    path: '/cluster/acme/account/{name}',
    description: 'Tell the ACME server other mail addresses, or only see whether it still knows the account.',
    params: { name: accountName, contact: optional(contact) },
    permission: rootOnly,
    returns: upid,
    cli: { command: ['acme', 'account', 'set'], positional: ['name'] },
    async handle({ name, contact: addresses }, call) {
      await call.services.acmeAccounts.get(name)
      return call.start(updateAccount, { name, contact: addresses === undefined ? undefined : splitList(addresses) })
    },
  }),
  endpoint({
    method: 'DELETE',
    path: '/cluster/acme/account/{name}',
    description: 'End an account at an ACME server. Certificates that were ordered with it stay good.',
    params: { name: accountName },
    permission: rootOnly,
    returns: upid,
    cli: { command: ['acme', 'account', 'deactivate'], positional: ['name'], destroys: 'name' },
    async handle({ name }, call) {
      await call.services.acmeAccounts.get(name)
      return call.start(deactivateAccount, { name })
    },
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/acme/directories',
    description: 'ACME servers one need not know the address of.',
    params: {},
    permission: anyone,
    returns: array(object({ name: string({ description: 'Name.' }), url: string({ description: 'Directory.' }) })),
    cli: { command: ['acme', 'directories'], columns: ['name', 'url'], id: 'url' },
    handle: () => [...directories],
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/acme/tos',
    description: 'Address of the terms of an ACME server.',
    params: { directory },
    permission: anyone,
    returns: optional(string({ description: 'The address.' })),
    async handle({ directory: asked = defaultDirectory }, { services: { settings }, may, signal }) {
      return (await askDirectory({ directory: asked, settings, may, signal })).termsOfService ?? ''
    },
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/acme/meta',
    description: 'What an ACME server says of itself.',
    params: { directory },
    permission: check('Sys.Audit', '/nodes'),
    returns: object({
      termsOfService: optional(string({ description: 'Address of its terms.' })),
      website: optional(string({ description: 'Address of its site.' })),
      caaIdentities: optional(array(string({ description: 'Name it wants in CAA records.' }))),
      externalAccountRequired: optional(boolean({ description: 'One must be known to it already.' })),
    }),
    async handle({ directory: asked = defaultDirectory }, { services: { settings }, may, signal }) {
      const { caaIdentities, ...meta } = await askDirectory({ directory: asked, settings, may, signal })
      return { ...meta, ...(caaIdentities ? { caaIdentities: [...caaIdentities] } : {}) }
    },
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/acme/challenge-schema',
    description: 'Name servers that can prove a name, with the settings each wants.',
    params: {},
    permission: anyone,
    returns: array(
      object({
        id: string({ description: 'Name for `api`.' }),
        name: string({ description: 'Name for people.' }),
        type: string({ description: 'dns.' }),
        schema: record({ description: 'Its settings.' }),
      }),
    ),
    handle: () =>
      dnsInterfaces.map((id) => ({
        id,
        name: 'Name server that takes changes (RFC 2136)',
        type: 'dns',
        schema: settings,
      })),
  }),
]

const field = (description: string, isOptional = true) => ({
  type: 'string',
  description,
  optional: isOptional ? 1 : 0,
})
const settings = {
  fields: {
    NSUPDATE_SERVER: field('Name or address of the server.', false),
    NSUPDATE_SERVER_PORT: field('Its port; 53 when absent.'),
    NSUPDATE_KEY: field('File on the node with the key (TSIG) changes are signed with.'),
    NSUPDATE_ZONE: field('Zone the records are in; found out when absent.'),
  },
}
