/** `/nodes`: the nodes and the state of each. */
import { array, object, string } from '#base/schema/schema.ts'
import { nodeName } from '#base/schema/standard.ts'
import { anyone, check } from '#rest/endpoint.ts'
import { nodeItem, nodeList, nodeStatus, statusOfNode } from '#views/node-status.ts'
import { endpoint } from '../call.ts'

const branches = [
  'aplinfo',
  'apt',
  'capabilities',
  'certificates',
  'config',
  'disks',
  'dns',
  'execute',
  'hardware',
  'hosts',
  'journal',
  'lxc',
  'netstat',
  'network',
  'qemu',
  'query-oci-repo-tags',
  'query-url-metadata',
  'report',
  'rrd',
  'rrddata',
  'scan',
  'services',
  'startall',
  'status',
  'stopall',
  'storage',
  'spiceshell',
  'subscription',
  'suspendall',
  'syslog',
  'tasks',
  'termproxy',
  'time',
  'version',
  'vncshell',
  'vncwebsocket',
  'vzdump',
  'wakeonlan',
] as const

export const nodeEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes',
    description: 'The nodes of the cluster.',
    params: {},
    permission: anyone,
    returns: array(nodeItem),
    cli: {
      command: ['node', 'list'],
      id: 'node',
      columns: ['node', 'status', 'cpu', 'maxcpu', 'mem', 'maxmem', 'uptime'],
    },
    handle: (_, { services, may }) => nodeList(services.node, services.settings.node, may),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}',
    description: 'What there is below a node.',
    params: { node: nodeName },
    permission: anyone,
    returns: array(object({ name: string({ description: 'Name of the branch.' }) })),
    handle: () => branches.map((name) => ({ name })),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/status',
    description: 'State of a node: load, memory, disk, processor, kernel.',
    proxyTo: 'node',
    params: { node: nodeName },
    permission: check('Sys.Audit', '/nodes/{node}'),
    returns: nodeStatus,
    cli: { command: ['node', 'show'], positional: ['node'] },
    handle: (_, { services }) => statusOfNode(services.node),
  }),
]
