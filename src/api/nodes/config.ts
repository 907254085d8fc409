/** `/nodes/{node}/config`: what a node is told about itself. */
import { invalid } from '#base/fault.ts'
import { splitList } from '#base/schema/formats.ts'
import {
  enumOf,
  indexed,
  integer,
  nothing,
  number,
  optional,
  propertyString,
  record,
  string,
} from '#base/schema/schema.ts'
import { nodeName } from '#base/schema/standard.ts'
import { acmeDomainFormat, acmeFormat } from '#cluster/acme/domains.ts'
import { check } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'

const options = {
  acme: optional(propertyString(acmeFormat, { description: 'Account and domains for certificates.', maxLength: 8192 })),
  ...indexed(
    'acmedomain',
    6,
    propertyString(acmeDomainFormat, {
      description: 'A domain for certificates and how it is proven.',
      maxLength: 1024,
    }),
  ),
  'ballooning-target': optional(
    integer({
      description: 'Percent of memory in use above which guests give memory back.',
      minimum: 0,
      maximum: 100,
      default: 80,
    }),
  ),
  description: optional(string({ description: 'Notes.', maxLength: 65_536 })),
  location: optional(
    propertyString(
      {
        latitude: { schema: number({ minimum: -90, maximum: 90 }) },
        longitude: { schema: number({ minimum: -180, maximum: 180 }) },
        name: { schema: optional(string({ maxLength: 128 })) },
      },
      { description: 'Where the node is.', maxLength: 512 },
    ),
  ),
  'startall-onboot-delay': optional(
    integer({ description: 'Seconds to wait before guests start at boot.', minimum: 0, maximum: 300, default: 0 }),
  ),
  wakeonlan: optional(
    propertyString(
      {
        mac: { schema: string({ format: 'mac-addr', maxLength: 17 }), isDefaultKey: true },
        'bind-interface': { schema: optional(string({ format: 'pve-iface', maxLength: 20 })) },
        'broadcast-address': {
          schema: optional(string({ format: 'ipv4', maxLength: 15, default: '255.255.255.255' })),
        },
      },
      { description: 'How the node is woken over the network.', maxLength: 256 },
    ),
  ),
}

const names = [
  'acme',
  'acmedomain0',
  'acmedomain1',
  'acmedomain2',
  'acmedomain3',
  'acmedomain4',
  'acmedomain5',
  'ballooning-target',
  'description',
  'location',
  'startall-onboot-delay',
  'wakeonlan',
] as const
const numbers: readonly string[] = ['ballooning-target', 'startall-onboot-delay']

export const nodeConfigEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/config',
    description: 'What a node is told about itself.',
    proxyTo: 'node',
    params: {
      node: nodeName,
      property: optional({ ...enumOf(names, { description: 'Only this one.' }), default: 'all' }),
    },
    permission: check('Sys.Audit', '/'),
    returns: record({ description: 'Options that are set, and `digest`.' }),
    cli: { command: ['node', 'config'], positional: ['node'] },
    async handle({ node, property }, { services }) {
      const { options: texts, digest } = await services.nodeConfigs.of(node)
      const shown = Object.entries(texts).filter(([name]) => property === undefined || property === name)
      return {
        digest,
        ...Object.fromEntries(shown.map(([name, text]) => [name, numbers.includes(name) ? Number(text) : text])),
      }
    },
  }),
  endpoint({
    method: 'PUT',
    path: '/nodes/{node}/config',
    description: 'Change what a node is told about itself.',
    proxyTo: 'node',
    params: {
      node: nodeName,
      ...options,
      delete: optional(
        string({ description: 'Options to return to their default.', format: 'pve-configid-list', maxLength: 4096 }),
      ),
      digest: optional(string({ description: 'Refuse when the options no longer have this SHA-1.', maxLength: 40 })),
    },
    permission: check('Sys.Modify', '/'),
    returns: nothing,
    cli: {
      command: ['node', 'set'],
      positional: ['node'],
      examples: ["node set lab --description 'in the cellar'", 'node set lab --wakeonlan BC:24:11:00:00:01'],
    },
    async handle({ node, delete: list, digest, ...given }, { services }) {
      const remove = splitList(list ?? '')
      const unknown = remove.find((name) => !Object.hasOwn(options, name))
      if (unknown !== undefined) throw invalid({ delete: `unknown option '${unknown}'` })
      const set = Object.entries(given).filter(([, value]) => value !== undefined)
      const texts = Object.fromEntries(set.map(([name, value]) => [name, String(value)]))
      await services.nodeConfigs.change(node, { set: texts, remove, digest })
      return null
    },
  }),
]
