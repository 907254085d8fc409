/** `/cluster/options`: what holds for the whole cluster. */
import { webauthnFormat } from '#access/tfa/webauthn.ts'
import { splitList } from '#base/schema/formats.ts'
import {
  boolean,
  enumOf,
  integer,
  nothing,
  number,
  optional,
  type PropertyFormat,
  propertyString,
  record,
  string,
} from '#base/schema/schema.ts'
import { invalid } from '#base/fault.ts'
import { nextIdFormat } from '#cluster/options.ts'
import { anyone, check } from '#rest/endpoint.ts'
import { optionsReply } from '#views/cluster-options.ts'
import { endpoint } from '../call.ts'

const longText = (description: string) => optional(string({ description, maxLength: 65_536 }))
const oneOf = <const V extends string>(values: readonly V[], description: string, standard?: V) =>
  optional(enumOf(values, standard === undefined ? { description } : { description, default: standard }))
const keyed = (format: PropertyFormat, description: string) =>
  optional(propertyString(format, { description, maxLength: 16_384 }))

const rate = { schema: optional(number({ minimum: 0, maximum: 2 ** 40 })) }
const flag = (standard: boolean) => ({ schema: optional(boolean({ default: standard })) })
const word = { schema: optional(string({ maxLength: 256 })) }
const choice = (values: readonly string[], standard?: string) => ({
  schema: optional(enumOf(values, standard === undefined ? {} : { default: standard })),
})
const transfer: PropertyFormat = {
  type: { schema: enumOf(['secure', 'insecure'], { default: 'secure' }), isDefaultKey: true },
  network: { schema: optional(string({ format: 'CIDR', maxLength: 64 })) },
}
const rebalance = { requires: 'ha-auto-rebalance' }
const tag = '(?i:[a-z0-9_][a-z0-9_\\-\\+\\.]*)'
const color = `(?:${tag}:[0-9a-fA-F]{6}(?::[0-9a-fA-F]{6})?)`

const options = {
  bwlimit: keyed(
    { clone: rate, default: rate, migration: rate, move: rate, restore: rate },
    'KiB per second at most, by kind of work.',
  ),
  'consent-text': longText('Shown before log-in.'),
  console: oneOf(['applet', 'vv', 'html5', 'xtermjs'], 'Viewer for consoles.'),
  crs: keyed(
    {
      ha: choice(['basic', 'static', 'dynamic'], 'basic'),
      'ha-auto-rebalance': flag(false),
      'ha-auto-rebalance-hold-duration': {
        schema: optional(number({ minimum: 0, maximum: 86_400, default: 3, ...rebalance })),
      },
      'ha-auto-rebalance-margin': { schema: optional(number({ minimum: 0, maximum: 100, default: 10, ...rebalance })) },
      'ha-auto-rebalance-method': {
        schema: optional(enumOf(['bruteforce', 'topsis'], { default: 'bruteforce', ...rebalance })),
      },
      'ha-auto-rebalance-threshold': {
        schema: optional(number({ minimum: 0, maximum: 100, default: 30, ...rebalance })),
      },
      'ha-rebalance-on-start': flag(false),
    },
    'How high availability places guests.',
  ),
  description: longText('Notes.'),
  email_from: optional(string({ description: 'Sender of mail.', format: 'email-opt', maxLength: 256 })),
  fencing: oneOf(['watchdog', 'hardware', 'both'], 'How a node that is lost is kept from going on.', 'watchdog'),
  ha: keyed(
    {
      shutdown_policy: {
        schema: enumOf(['freeze', 'failover', 'conditional', 'migrate'], { default: 'conditional' }),
      },
    },
    'What high availability does when a node shuts down.',
  ),
  http_proxy: optional(string({ description: 'Proxy for downloads.', pattern: /http:\/\/.*/, maxLength: 512 })),
  keyboard: oneOf(
    [
      'de',
      'de-ch',
      'da',
      'en-gb',
      'en-us',
      'es',
      'fi',
      'fr',
      'fr-be',
      'fr-ca',
      'fr-ch',
      'hu',
      'is',
      'it',
      'ja',
      'lt',
      'mk',
      'nl',
      'no',
      'pl',
      'pt',
      'pt-br',
      'sv',
      'sl',
      'tr',
    ],
    'Layout of keyboards of consoles.',
  ),
  language: oneOf(
    [
      'ar',
      'ca',
      'da',
      'de',
      'en',
      'es',
      'eu',
      'fa',
      'fr',
      'hr',
      'he',
      'it',
      'ja',
      'ka',
      'kr',
      'nb',
      'nl',
      'nn',
      'pl',
      'pt_BR',
      'ru',
      'sl',
      'sv',
      'tr',
      'ukr',
      'zh_CN',
      'zh_TW',
    ],
    'Language of the user interface.',
  ),
  location: keyed(
    {
      latitude: { schema: number({ minimum: -90, maximum: 90 }) },
      longitude: { schema: number({ minimum: -180, maximum: 180 }) },
      name: { schema: optional(string({ maxLength: 128 })) },
    },
    'Where the cluster is.',
  ),
  mac_prefix: optional(
    string({
      description: 'MAC addresses given to guests begin so.',
      format: 'mac-prefix',
      maxLength: 17,
      default: 'BC:24:11',
    }),
  ),
  max_workers: optional(integer({ description: 'Guests handled at once.', minimum: 1, maximum: 1024 })),
  migration: keyed(transfer, 'How guests move between nodes.'),
  migration_unsecure: optional(boolean({ description: 'Older spelling of migration.' })),
  'next-id': keyed(nextIdFormat, 'Range of ids given to guests when nobody names one; the upper end is not given.'),
  notify: keyed(
    {
      fencing: choice(['always', 'never']),
      'package-updates': choice(['auto', 'always', 'never'], 'auto'),
      replication: choice(['always', 'never']),
      'target-fencing': word,
      'target-package-updates': word,
      'target-replication': word,
    },
    'What is told to whom.',
  ),
  'registered-tags': optional(
    string({
      description: 'Tags only who may change options may give.',
      pattern: new RegExp(`(?:${tag};)*${tag}`),
      maxLength: 16_384,
    }),
  ),
  replication: keyed(transfer, 'How disks are replicated between nodes.'),
  'tag-style': keyed(
    {
      'case-sensitive': flag(false),
      'color-map': { schema: optional(string({ pattern: new RegExp(`${color}(?:;${color})*`), maxLength: 8192 })) },
      ordering: choice(['config', 'alphabetical'], 'alphabetical'),
      shape: choice(['full', 'circle', 'dense', 'none'], 'circle'),
    },
    'How tags look.',
  ),
  u2f: keyed({ appid: word, origin: word }, 'Settings of U2F.'),
  'user-tag-access': keyed(
    {
      'user-allow': choice(['none', 'list', 'existing', 'free'], 'free'),
      'user-allow-list': { schema: optional(string({ pattern: new RegExp(`${tag}(?:;${tag})*`), maxLength: 8192 })) },
    },
    'Which tags users may give.',
  ),
  webauthn: keyed(webauthnFormat, 'The site that keys of WebAuthn are made for; keys hold for its `id` alone.'),
} as const

export const clusterOptionEndpoints = [
  endpoint({
    method: 'GET',
    path: '/cluster/options',
    description: 'Options of the cluster; without Sys.Audit on / only what a user interface needs.',
    params: {},
    permission: anyone,
    returns: record({ description: 'Options that are set.' }),
    cli: { command: ['cluster', 'options'], examples: ['cluster options -o yaml'] },
    isKept: true,
    handle: async (_, { services, may }) =>
      optionsReply(options, await services.options.all(), await may('/', 'Sys.Audit')),
  }),
  endpoint({
    method: 'PUT',
    path: '/cluster/options',
    description: 'Change options of the cluster.',
    params: {
      ...options,
      delete: optional(
        string({ description: 'Options to return to their default.', format: 'pve-configid-list', maxLength: 4096 }),
      ),
    },
    permission: check('Sys.Modify', '/'),
    returns: nothing,
    cli: { command: ['cluster', 'set'], examples: ['cluster set --next-id lower=200,upper=1000'] },
    async handle({ delete: list, ...set }, { services }) {
      const remove = splitList(list ?? '')
      const unknown = remove.find((name) => !Object.hasOwn(options, name))
      if (unknown !== undefined) throw invalid({ delete: `unknown option '${unknown}'` })
      const texts = Object.entries(set).map(([name, value]) => [name, asText(value)] as const)
      await services.options.change(Object.fromEntries(texts), remove)
      return null
    },
  }),
]

function asText(value: string | number | boolean | undefined): string {
  return typeof value === 'boolean' ? String(Number(value)) : String(value)
}
