/** What a realm may be configured with, by type, in Proxmox VE's spelling. */
import { boolean, enumOf, integer, optional, type Properties, string } from '#base/schema/schema.ts'

const text = (description: string, maxLength = 256) => optional(string({ description, maxLength }))
const flag = (description: string, standard?: boolean) =>
  optional(boolean(standard === undefined ? { description } : { description, default: standard }))
const server = (description: string) => optional(string({ description, format: 'address', maxLength: 256 }))
const printable = /^[^\x00-\x1F\x7F <>#"]*$/ // oxlint-disable-line no-control-regex -- those are what it forbids.

export const vanishedPattern = /(?:(?:(?:acl|properties|entry);)*(?:acl|properties|entry))|none/
export const syncScopes = ['users', 'groups', 'both'] as const

export const realmOptions = {
  'acr-values': optional(
    string({ description: 'Authentication classes to ask the provider for.', pattern: printable, maxLength: 1024 }),
  ),
  audiences: optional(
    string({ description: 'Further audiences to accept of the provider.', pattern: printable, maxLength: 1024 }),
  ),
  autocreate: flag('Create users when they log in first.', false),
  base_dn: text('Where users are looked for.'),
  bind_dn: text('Who looks for users; nobody in particular when it is not given.'),
  capath: optional(
    string({
      description: 'File or directory of certificates to trust.',
      default: '/etc/ssl/certs',
      maxLength: 1024,
    }),
  ),
  'case-sensitive': flag('Names of users differ by case.', true),
  cert: text('File of the certificate of this node as a client.', 1024),
  certkey: text('File of the key of that certificate.', 1024),
  'check-connection': flag('Try the connection before anything is kept.', false),
  'client-id': text('Name of this node at the provider.'),
  'client-key': optional(
    string({ description: 'Secret of this node at the provider.', maxLength: 256, isSecret: true }),
  ),
  comment: text('Note for people.', 4096),
  default: flag('Offered first at log-in; then no other realm is.'),
  domain: optional(string({ description: 'Domain of Active Directory.', pattern: /\S+/, maxLength: 256 })),
  filter: text('LDAP filter users must pass.', 2048),
  group_classes: optional(
    string({
      description: 'Object classes of groups.',
      format: 'ldap-simple-attr-list',
      default: 'groupOfNames, group, univentionGroup, ipausergroup',
      maxLength: 1024,
    }),
  ),
  group_dn: text('Where groups are looked for; where users are when it is not given.'),
  group_filter: text('LDAP filter groups must pass.', 2048),
  group_name_attr: optional(
    string({ description: 'Attribute that names a group.', format: 'ldap-simple-attr', maxLength: 256 }),
  ),
  'groups-autocreate': flag('Create groups the provider names.', false),
  'groups-claim': optional(
    string({ description: 'Claim that names the groups of a user.', pattern: /(?:[A-Za-z0-9.\-_]+)/, maxLength: 256 }),
  ),
  'groups-overwrite': flag('At log-in, groups of a user become those of the claim.', false),
  'issuer-url': text('Address of the OpenID provider.'),
  mode: optional(enumOf(['ldap', 'ldaps', 'ldap+starttls'], { description: 'How to connect.', default: 'ldap' })),
  password: optional(string({ description: 'Password of bind_dn.', maxLength: 1024, isSecret: true })),
  port: optional(integer({ description: 'Port of the servers.', minimum: 1, maximum: 65_535 })),
  prompt: optional(
    string({
      description: 'What the provider asks its user.',
      pattern: /(?:none|login|consent|select_account|\S+)/,
      maxLength: 256,
    }),
  ),
  'query-userinfo': flag('Ask the provider for claims beside the token.', true),
  scopes: text('Scopes to ask for; `email profile` when it is not given.', 1024),
  secure: flag('Older spelling of mode ldaps.'),
  server1: server('Server.'),
  server2: server('Server to ask when the first one does not answer.'),
  sslversion: optional(
    enumOf(['tlsv1', 'tlsv1_1', 'tlsv1_2', 'tlsv1_3'], { description: 'Oldest version of TLS to speak.' }),
  ),
  'sync-defaults-options': optional(
    string({
      description: 'What a synchronization does unless told otherwise.',
      format: 'realm-sync-options',
      maxLength: 256,
    }),
  ),
  sync_attributes: optional(
    string({
      description: 'Attributes that become mail address, first and last name: `email=mail,firstname=givenName`.',
      pattern: /\w+=[^,]+(,\s*\w+=[^,]+)*/,
      maxLength: 1024,
    }),
  ),
  tfa: optional(
    string({
      description: 'Second factor every user of the realm must have: `type=oath`.',
      format: 'pve-tfa-config',
      maxLength: 128,
    }),
  ),
  user_attr: optional(string({ description: 'Attribute that names a user.', pattern: /\S{2,}/, maxLength: 256 })),
  user_classes: optional(
    string({
      description: 'Object classes of users.',
      format: 'ldap-simple-attr-list',
      default: 'inetorgperson, posixaccount, person, user',
      maxLength: 1024,
    }),
  ),
  verify: flag('Refuse servers whose certificate nobody trusted signed.', false),
} as const satisfies Properties

/** Given at creation and not changed after. */
export const lastingOptions = {
  'username-claim': text('Claim that names the user; `sub` when it is not given.'),
} as const satisfies Properties

export type RealmOptionName = keyof typeof realmOptions | keyof typeof lastingOptions

export const realmTypes = ['ad', 'ldap', 'openid', 'pam', 'pve'] as const
export type RealmType = (typeof realmTypes)[number]

/** Kept apart from the others and never told. */
export const secretOptions: readonly RealmOptionName[] = ['password', 'client-key']

const everywhere = ['comment', 'default'] as const
const directory = [
  ...everywhere,
  ...(['tfa', 'server1', 'server2', 'port', 'mode', 'secure', 'sslversion', 'verify', 'capath', 'cert'] as const),
  ...(['certkey', 'base_dn', 'bind_dn', 'password', 'filter', 'user_classes', 'sync_attributes'] as const),
  ...(['group_dn', 'group_name_attr', 'group_filter', 'group_classes', 'sync-defaults-options'] as const),
  ...(['check-connection', 'case-sensitive'] as const),
] as const

export const optionsOf: Readonly<Record<RealmType, readonly RealmOptionName[]>> = {
  pam: [...everywhere, 'tfa'],
  pve: [...everywhere, 'tfa'],
  ldap: [...directory, 'user_attr'],
  ad: [...directory, 'domain', 'user_attr'],
  openid: [
    ...everywhere,
    ...(['issuer-url', 'client-id', 'client-key', 'autocreate', 'username-claim', 'groups-claim'] as const),
    ...(['groups-autocreate', 'groups-overwrite', 'prompt', 'scopes', 'acr-values', 'query-userinfo'] as const),
    'audiences',
  ],
}

export const requiredOf: Readonly<Record<RealmType, readonly RealmOptionName[]>> = {
  pam: [],
  pve: [],
  ldap: ['server1', 'base_dn', 'user_attr'],
  ad: ['server1', 'domain'],
  openid: ['issuer-url', 'client-id'],
}

export type RealmValues = { readonly [name: string]: string | number | boolean | undefined }

export type RealmConfig = { readonly type: RealmType; readonly options: RealmValues }

export type Realms = ReadonlyMap<string, RealmConfig>

/** Always there, stored or not. */
export const builtInRealms: Realms = new Map<string, RealmConfig>([
  ['pam', { type: 'pam', options: { comment: 'Linux PAM standard authentication' } }],
  ['pve', { type: 'pve', options: { comment: 'Hakobune authentication server' } }],
])

/** What is stored lies over what is built in. */
export function realmsIn(stored: Readonly<Record<string, RealmConfig>>): Realms {
  return new Map([...builtInRealms, ...Object.entries(stored)])
}
