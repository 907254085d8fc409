/** `/cluster`: what there is, and the next free id. */
import { networkInterfaces } from 'node:os'
import { asVmid, type Vmid } from '#base/ids.ts'
import { invalid } from '#base/fault.ts'
import { array, boolean, enumOf, integer, object, optional, string } from '#base/schema/schema.ts'
import { vmid } from '#base/schema/standard.ts'
import type { GuestService } from '#guests/service.ts'
import { anyone, check } from '#rest/endpoint.ts'
import { resources, resourceTypes, visibleResources } from '#views/resources.ts'
import { type Call, endpoint } from '../call.ts'

const children = [
  'acme',
  'backup',
  'backup-info',
  'bulk-action',
  'jobs',
  'log',
  'mapping',
  'metrics',
  'nextid',
  'options',
  'qemu',
  'resources',
  'status',
  'tasks',
]

const statusEntry = object({
  id: string({ description: 'Unique: `node/<name>` or `cluster`.' }),
  type: enumOf(['cluster', 'node']),
  name: string({ description: 'Name of the node or the cluster.' }),
  ip: optional(string({ description: 'Address of the node.' })),
  level: optional(string({ description: 'Support level.' })),
  local: optional(boolean({ description: 'The node that answers.' })),
  nodeid: optional(integer({ description: 'Number of the node in the cluster; 0 on a single host.' })),
  online: optional(boolean({ description: 'The node takes part.' })),
})

export const clusterResourceEndpoints = [
  endpoint({
    method: 'GET',
    path: '/cluster',
    description: 'What is below this path.',
    params: {},
    permission: anyone,
    returns: array(object({ name: string() })),
    handle: () => children.map((name) => ({ name })),
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/resources',
    description: 'Nodes, guests and storages the caller may see.',
    params: { type: optional(enumOf(resourceTypes, { description: 'Only this kind; vm is every guest.' })) },
    permission: anyone,
    returns: resources,
    cli: {
      command: ['resource', 'list'],
      columns: ['id', 'type', 'name', 'node', 'status', 'cpu', 'mem', 'maxmem', 'uptime'],
      id: 'id',
      examples: ['resource list', 'resource list --type vm -o json'],
    },
    isKept: true,
    handle: ({ type }, { services, may }) => visibleResources(services, type, may),
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/nextid',
    description: 'The lowest free guest id, or the given one if it is free.',
    params: { vmid: optional(vmid) },
    permission: anyone,
    // Text, although it is a number: clients read it so.
    returns: string({ description: 'A free id.' }),
    cli: { command: ['vm', 'next-id'], examples: ['vm create "$(hako vm next-id)" --memory 1024 --scsi0 local:8'] },
    handle: async ({ vmid: wish }, { services }) =>
      String(wish === undefined ? await nextFree(services) : await free(services.guests, asVmid(wish))),
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/status',
    description: 'The nodes and whether they take part.',
    params: {},
    permission: check('Sys.Audit', '/'),
    returns: array(statusEntry),
    handle: (_, { services }) => {
      const name = services.settings.node
      const node = { id: `node/${name}`, type: 'node' as const, name, level: '', local: true, nodeid: 0, online: true }
      return [{ ...node, ip: ownAddress() }]
    },
  }),
]

async function nextFree({ options, guests }: Call['services']): Promise<Vmid> {
  const { lower, upper } = await options.nextIdRange()
  return guests.nextId(lower, upper)
}

async function free(guests: GuestService, wish: Vmid): Promise<Vmid> {
  if (!(await guests.isFree(wish))) throw invalid({ vmid: `VM ${wish} already exists` })
  return wish
}

/** The first address of the machine others can reach it by. */
function ownAddress(): string {
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? [])
  return all.find(({ internal, family }) => !internal && family === 'IPv4')?.address ?? '127.0.0.1'
}
