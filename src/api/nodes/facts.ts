/** `/nodes/{node}/{netstat,report,wakeonlan,query-url-metadata}` and its power switch. */
import { array, boolean, enumOf, integer, nothing, object, optional, string } from '#base/schema/schema.ts'
import { nodeName } from '#base/schema/standard.ts'
import { powerMachine } from '#cluster/whole-machine.ts'
import { reachOf } from '#host/web/reach.ts'
import { urlMetadata } from '#host/web/url-metadata.ts'
import { any, check } from '#rest/endpoint.ts'
import { traffic } from '#views/netstat.ts'
import { nodeReport } from '#views/node-report.ts'
import { wakeNode } from '#views/wake.ts'
import { endpoint } from '../call.ts'

const at = { node: nodeName }
const mayAudit = check('Sys.Audit', '/nodes/{node}')

export const nodeFactEndpoints = [
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/status',
    description: 'Restart the machine of a node, or switch it off.',
    proxyTo: 'node',
    params: { ...at, command: enumOf(['reboot', 'shutdown'], { description: 'What to do.' }) },
    permission: check('Sys.PowerMgmt', '/nodes/{node}'),
    returns: nothing,
    async handle({ command }, { services }) {
      await powerMachine(services.host, services.settings, command)
      return null
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/netstat',
    description: 'Bytes each running guest has received and sent.',
    proxyTo: 'node',
    params: at,
    permission: mayAudit,
    returns: array(
      object({
        vmid: string({ description: 'Number of the guest.' }),
        dev: string({ description: 'Its card.' }),
        in: integer({ description: 'Bytes received.' }),
        out: integer({ description: 'Bytes sent.' }),
      }),
    ),
    handle: (_, { services }) => traffic(services.store),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/report',
    description: 'All that is known of a node in one text, for a person who helps its owner.',
    proxyTo: 'node',
    params: at,
    permission: mayAudit,
    returns: string({ description: 'The text.' }),
    cli: { command: ['node', 'report'], positional: ['node'] },
    handle: (_, { services }) => nodeReport(services),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/wakeonlan',
    description: 'Wake a node over the network.',
    params: at,
    permission: check('Sys.PowerMgmt', '/nodes/{node}'),
    returns: string({ description: 'The address that was called.' }),
    cli: { command: ['node', 'wake'], positional: ['node'] },
    handle: ({ node }, { services }) => wakeNode(services, node),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/query-url-metadata',
    description: 'Name, size and kind of the file behind a URL. Addresses of the node itself are not asked.',
    proxyTo: 'node',
    params: {
      ...at,
      url: string({ description: 'The URL.', pattern: /https?:\/\/.*/, maxLength: 4096 }),
      'verify-certificates': optional(boolean({ description: 'Refuse servers nobody vouches for.', default: true })),
    },
    permission: any(check(['Sys.Audit', 'Sys.Modify'], '/'), check('Sys.AccessNetwork', '/nodes/{node}')),
    returns: object({
      filename: optional(string({ description: 'Name of the file.' })),
      mimetype: optional(string({ description: 'Kind of the file.' })),
      size: optional(integer({ description: 'Bytes.' })),
    }),
    async handle({ url, ...params }, { services, signal }) {
      const reach = reachOf(services.settings.fetchNetworks)
      const verifyCertificates = params['verify-certificates']
      const { sizeBytes, ...facts } = await urlMetadata(url, { reach, verifyCertificates, signal })
      return { ...facts, ...(sizeBytes === undefined ? {} : { size: sizeBytes }) }
    },
  }),
]
