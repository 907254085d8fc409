/** `/nodes/{node}/{time,dns,hosts}`: settings of the machine a node runs on. */
import { integer, nothing, object, optional, string } from '#base/schema/schema.ts'
import { seconds } from '#base/clock.ts'
import { nodeName } from '#base/schema/standard.ts'
import { check } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'

const mayAudit = check('Sys.Audit', '/nodes/{node}')
const mayModify = check('Sys.Modify', '/nodes/{node}')
const at = { node: nodeName }
const address = (description: string) => optional(string({ description, format: 'ip', maxLength: 64 }))

export const machineEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/time',
    description: 'Time and time zone of a node.',
    proxyTo: 'node',
    params: at,
    permission: mayAudit,
    returns: object({
      timezone: string({ description: 'Name of the time zone.' }),
      time: integer({ description: 'Seconds since 1970.' }),
      localtime: integer({ description: 'Seconds since 1970 as the clock on the wall shows them.' }),
    }),
    cli: { command: ['node', 'time'], positional: ['node'] },
    async handle(_, { services }) {
      const [timezone, time] = [await services.machine.timeZone(), seconds(services.clock)]
      const { offsetNanoseconds } = Temporal.Instant.fromEpochMilliseconds(time * 1000).toZonedDateTimeISO(timezone)
      return { timezone, time, localtime: time + Math.round(offsetNanoseconds / 1e9) }
    },
  }),
  endpoint({
    method: 'PUT',
    path: '/nodes/{node}/time',
    description: 'Set the time zone of a node.',
    proxyTo: 'node',
    params: { ...at, timezone: string({ description: 'Name of the time zone, `Europe/Vienna`.', maxLength: 64 }) },
    permission: mayModify,
    returns: nothing,
    cli: {
      command: ['node', 'set-time'],
      positional: ['node', 'timezone'],
      examples: ['node set-time lab Europe/Vienna'],
    },
    handle: ({ timezone }, { services }) => services.machine.setTimeZone(timezone).then(() => null),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/dns',
    description: 'Name servers a node asks.',
    proxyTo: 'node',
    params: at,
    permission: mayAudit,
    returns: object({
      search: optional(string({ description: 'Domain names are completed with.' })),
      dns1: optional(string({ description: 'First name server.' })),
      dns2: optional(string({ description: 'Second name server.' })),
      dns3: optional(string({ description: 'Third name server.' })),
    }),
    cli: { command: ['node', 'dns'], positional: ['node'] },
    async handle(_, { services }) {
      const { search, servers } = await services.machine.nameServers()
      const named = Object.fromEntries(servers.map((server, index) => [`dns${index + 1}`, server]))
      return { ...named, ...(search === undefined ? {} : { search }) }
    },
  }),
  endpoint({
    method: 'PUT',
    path: '/nodes/{node}/dns',
    description: 'Set the name servers a node asks.',
    proxyTo: 'node',
    params: {
      ...at,
      search: string({ description: 'Domain names are completed with.', format: 'dns-name-list', maxLength: 1024 }),
      dns1: address('First name server.'),
      dns2: address('Second name server.'),
      dns3: address('Third name server.'),
    },
    permission: mayModify,
    returns: nothing,
    cli: {
      command: ['node', 'set-dns'],
      positional: ['node'],
      examples: ['node set-dns lab --search example.org --dns1 192.0.2.53'],
    },
    async handle({ search, dns1, dns2, dns3 }, { services }) {
      const servers = [dns1, dns2, dns3].filter((server) => server !== undefined)
      await services.machine.setNameServers({ search, servers })
      return null
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/hosts',
    description: 'The list of host names of a node.',
    proxyTo: 'node',
    params: at,
    permission: check('Sys.Audit', '/'),
    returns: object({
      data: string({ description: 'The file.' }),
      digest: string({ description: 'SHA-1 of the file.' }),
    }),
    cli: { command: ['node', 'hosts'], positional: ['node'] },
    handle: (_, { services }) => services.machine.hosts(),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/hosts',
    description: 'Replace the list of host names of a node.',
    proxyTo: 'node',
    params: {
      ...at,
      data: string({ description: 'The whole file.', maxLength: 262_144 }),
      digest: optional(string({ description: 'Refuse when the file no longer has this SHA-1.', maxLength: 64 })),
    },
    permission: mayModify,
    returns: nothing,
    handle: ({ data, digest }, { services }) => services.machine.setHosts(data, digest).then(() => null),
  }),
]
