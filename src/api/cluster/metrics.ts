/** `/cluster/metrics`: servers that are told how the node, its guests and its storages are. */
import {
  array,
  boolean,
  enumOf,
  integer,
  nothing,
  number,
  object,
  optional,
  record,
  string,
} from '#base/schema/schema.ts'
import { splitList } from '#base/schema/formats.ts'
import { metricServerTypes } from '#observe/metric-servers.ts'
import { anyone, check } from '#rest/endpoint.ts'
import { exportedMetrics } from '#views/metric-export.ts'
import { endpoint } from '../call.ts'

const mayAudit = check('Sys.Audit', '/')
const mayModify = check('Sys.Modify', '/')
const id = string({ description: 'Name of the server here.', format: 'pve-configid', maxLength: 64 })
const text = (description: string, rules: Parameters<typeof string>[0] = {}) =>
  optional(string({ description, maxLength: 256, ...rules }))
const whole = (description: string, minimum: number, maximum: number, value: number) =>
  optional(integer({ description, minimum, maximum, default: value }))
const largestBody = 1_000_000_000

const kind = { ...enumOf(metricServerTypes, { description: 'Kind of server.' }), format: 'pve-configid' }

const place = {
  server: string({ description: 'Name or address of the server.', format: 'address', maxLength: 256 }),
  port: integer({ description: 'Its port.', minimum: 1, maximum: 65_536 }),
}

const options = {
  disable: optional(boolean({ description: 'Tell it nothing for now.' })),
  mtu: whole('Largest packet of UDP, with its head.', 512, 65_536, 1500),
  timeout: whole('Seconds it may take to be told, by TCP and HTTP.', 0, 60, 1),
  path: text('graphite: what all names begin with, `proxmox`.', { format: 'graphite-path' }),
  proto: optional(enumOf(['udp', 'tcp'], { description: 'graphite: how it is told; udp.' })),
  influxdbproto: optional(
    enumOf(['udp', 'http', 'https'], { description: 'influxdb: how it is told.', default: 'udp' }),
  ),
  organization: text('influxdb: organization the bucket belongs to, `proxmox`.'),
  bucket: text('influxdb: bucket the values go into, `proxmox`; the database of an older server.'),
  token: text('influxdb: what lets one write into the bucket; kept, and never shown.', {
    maxLength: 1024,
    isSecret: true,
  }),
  'api-path-prefix': text('influxdb: what stands before `/api/v2/write` behind a proxy.', {
    pattern: /[\w./~-]*/,
  }),
  'max-body-size': whole('influxdb: largest request in bytes.', 1, largestBody, 25_000_000),
  'verify-certificate': optional(
    boolean({ description: 'influxdb: refuse a certificate nobody vouches for.', default: true }),
  ),
  'otel-protocol': optional(
    enumOf(['http', 'https'], { description: 'opentelemetry: how it is told.', default: 'https' }),
  ),
  'otel-path': text('opentelemetry: path of the requests.', { pattern: /\/[\w./~-]*/, default: '/v1/metrics' }),
  'otel-timeout': whole('opentelemetry: seconds it may take to be told.', 1, 10, 5),
  'otel-headers': text('opentelemetry: more headers, a JSON object, plain or in base64; kept, and never shown.', {
    maxLength: 1024,
    isSecret: true,
  }),
  'otel-resource-attributes': text('opentelemetry: more of what the node is, a JSON object, plain or in base64.', {
    maxLength: 1024,
  }),
  'otel-compression': optional(
    enumOf(['none', 'gzip'], { description: 'opentelemetry: how requests are packed.', default: 'gzip' }),
  ),
  'otel-max-body-size': whole('opentelemetry: largest request in bytes.', 1024, largestBody, 10_000_000),
  'otel-verify-ssl': optional(
    boolean({ description: 'opentelemetry: refuse a certificate nobody vouches for.', default: true }),
  ),
}

export const metricEndpoints = [
  endpoint({
    method: 'GET',
    path: '/cluster/metrics',
    description: 'What is below this path.',
    params: {},
    permission: anyone,
    returns: array(object({ name: string() })),
    handle: () => [{ name: 'export' }, { name: 'server' }],
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/metrics/export',
    description:
      'How nodes, guests and storages are, as numbers; with `history` also how they were in the last half hour, by the minute. What is counted (bytes sent, say) is told as it stands now.',
    params: {
      history: optional(boolean({ description: 'Also what was.', default: false })),
      'local-only': optional(boolean({ description: 'Only what the node that answers knows.', default: false })),
      'node-list': optional(string({ description: 'Only these nodes.', format: 'pve-node-list', maxLength: 4096 })),
      'start-time': optional(
        integer({
          description: 'Only what was measured after this, in seconds since 1970.',
          minimum: 0,
          maximum: 253_402_300_799,
          default: 0,
        }),
      ),
    },
    permission: mayAudit,
    returns: object({
      data: array(
        object({
          id: string({ description: 'What it is about: `node/lab`, `qemu/100`, `storage/lab/local`.' }),
          metric: string({ description: 'What was measured.' }),
          timestamp: integer({ description: 'When, in seconds since 1970.' }),
          type: enumOf(['gauge', 'counter', 'derive'], {
            description: 'How it is, or what it has been counted up to.',
          }),
          value: number({ description: 'The value.' }),
        }),
      ),
    }),
    cli: { command: ['metrics', 'export'] },
    async handle({ history = false, 'start-time': after = 0, 'node-list': nodes }, { services }) {
      const isMeant = nodes === undefined || splitList(nodes).includes(services.settings.node)
      return { data: isMeant ? await exportedMetrics(services, { history, after }) : [] }
    },
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/metrics/server',
    description: 'Servers that are told how everything is.',
    params: {},
    permission: mayAudit,
    returns: array(
      object({
        id: string({ description: 'Name here.' }),
        type: string({ description: 'Kind of server.' }),
        server: string({ description: 'Name or address.' }),
        port: integer({ description: 'Port.' }),
        disable: optional(boolean({ description: 'It is told nothing for now.' })),
      }),
    ),
    cli: { command: ['metrics', 'list'], columns: ['id', 'type', 'server', 'port', 'disable'], id: 'id' },
    async handle(_params, { services }) {
      const all = await services.metricServers.list()
      return all.map(({ id: name, type, options: { server, port, disable } }) => {
        const off = disable === true ? { disable } : {}
        return { id: name, type, server: String(server), port: Number(port), ...off }
      })
    },
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/metrics/server/{id}',
    description: 'A metric server, without what lets one in there.',
    params: { id },
    permission: mayAudit,
    returns: record({ description: 'Its options, its type, and their digest.' }),
    cli: { command: ['metrics', 'show'], positional: ['id'] },
    async handle({ id: name }, { services }) {
      const { type, options: kept, digest } = await services.metricServers.get(name)
      return { ...kept, id: name, type, digest }
    },
  }),
  endpoint({
    method: 'POST',
    path: '/cluster/metrics/server/{id}',
    description: 'Tell another server, from now on every ten seconds.',
    params: { id, type: kind, ...place, ...options },
    permission: mayModify,
    returns: nothing,
    cli: {
      command: ['metrics', 'create'],
      positional: ['id'],
      examples: ['metrics create graphs --type graphite --server 192.0.2.7 --port 2003'],
    },
    handle: ({ id: name, type, ...given }, { services }) =>
      services.metricServers.create(name, type, given).then(() => null),
  }),
  endpoint({
    method: 'PUT',
    path: '/cluster/metrics/server/{id}',
    description: 'Change a metric server; what is not given stays.',
    params: {
      id,
      ...place,
      ...options,
      delete: text('Options to return to their default.', { format: 'pve-configid-list', maxLength: 4096 }),
      digest: text('Refuse when the options no longer have this SHA-1.', { maxLength: 64 }),
    },
    permission: mayModify,
    returns: nothing,
    cli: { command: ['metrics', 'set'], positional: ['id'] },
    handle: ({ id: name, delete: remove = '', digest, ...given }, { services }) => {
      const changed = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
      return services.metricServers.change(name, changed, remove, digest).then(() => null)
    },
  }),
  endpoint({
    method: 'DELETE',
    path: '/cluster/metrics/server/{id}',
    description: 'Tell a metric server no longer.',
    params: { id },
    permission: mayModify,
    returns: nothing,
    cli: { command: ['metrics', 'delete'], positional: ['id'] },
    handle: ({ id: name }, { services }) => services.metricServers.delete(name).then(() => null),
  }),
]
