/** `rrddata` and `rrd` of a node, its guests and storages: how they were, from the last hour to the last decade. */
import { seconds } from '#base/clock.ts'
import { missing } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { splitList } from '#base/schema/formats.ts'
import { array, enumOf, object, optional, record, string } from '#base/schema/schema.ts'
import { nodeName, storageId, vmid as vmidSchema } from '#base/schema/standard.ts'
import type { Kind } from '#observe/history.ts'
import { timeframes } from '#observe/ring-file.ts'
import { check, checkAny } from '#rest/endpoint.ts'
import { type Call, endpoint } from '../call.ts'

const query = {
  timeframe: enumOf(timeframes, { description: 'How far back.' }),
  cf: optional(enumOf(['AVERAGE', 'MAX'], { description: 'Mean or maximum of each step.' })),
}
const rows = array(record({ description: '`time` of the step in seconds since 1970, and what was measured in it.' }))

interface Query {
  readonly timeframe: (typeof timeframes)[number]
  readonly cf?: 'AVERAGE' | 'MAX' | undefined
}

const history = ({ services }: Call, kind: Kind, name: string, { timeframe, cf = 'AVERAGE' }: Query) =>
  services.history.rows(kind, name, { timeframe, how: cf, nowSeconds: seconds(services.clock) })

/** @throws Fault `missing` for a node that is not in the cluster */
function known(node: string, { services }: Call): string {
  if (node !== services.settings.node) throw missing('node', node)
  return node
}

const columns = string({ description: 'Columns to draw.', format: 'pve-configid-list', maxLength: 1024 })
const picture = object({ filename: string({ description: 'Path of the picture on the node.' }) })

const draw = async (
  { services }: Call,
  kind: Kind,
  name: string,
  { timeframe, cf = 'AVERAGE', ds }: Query & { ds: string },
) => ({
  filename: await services.history.draw(kind, name, splitList(ds), {
    timeframe,
    how: cf,
    nowSeconds: seconds(services.clock),
  }),
})

export const rrdEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/rrd',
    description: 'How a node was, as a picture.',
    params: { node: nodeName, ds: columns, ...query },
    permission: check('Sys.Audit', '/nodes/{node}'),
    returns: picture,
    handle: ({ node, ...params }, call) => draw(call, 'node', known(node, call), params),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/lxc/{vmid}/rrd',
    description: 'How a container was, as a picture.',
    params: { node: nodeName, vmid: vmidSchema, ds: columns, ...query },
    permission: check('VM.Audit', '/vms/{vmid}'),
    returns: picture,
    async handle({ vmid, ...params }, call) {
      await call.services.guests.config(asVmid(vmid), 'lxc')
      return draw(call, 'guest', String(vmid), params)
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/qemu/{vmid}/rrd',
    description: 'How a virtual machine was, as a picture.',
    params: { node: nodeName, vmid: vmidSchema, ds: columns, ...query },
    permission: check('VM.Audit', '/vms/{vmid}'),
    returns: picture,
    async handle({ vmid, ...params }, call) {
      await call.services.guests.config(asVmid(vmid))
      return draw(call, 'guest', String(vmid), params)
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/storage/{storage}/rrd',
    description: 'How full a storage was, as a picture.',
    proxyTo: 'node',
    params: { node: nodeName, storage: storageId, ds: columns, ...query },
    permission: checkAny(['Datastore.Audit', 'Datastore.AllocateSpace'], '/storage/{storage}'),
    returns: picture,
    async handle({ storage, ...params }, call) {
      await call.services.storage.get(storage)
      return draw(call, 'storage', storage, params)
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/rrddata',
    description: 'How a node was: load, memory, disk, network.',
    params: { node: nodeName, ...query },
    permission: check('Sys.Audit', '/nodes/{node}'),
    returns: rows,
    cli: {
      command: ['node', 'history'],
      positional: ['node', 'timeframe'],
      columns: ['time', 'cpu', 'iowait', 'loadavg', 'memused', 'rootused', 'netin', 'netout'],
      id: 'time',
      examples: ['node history lab hour'],
    },
    handle: ({ node, ...params }, call) => history(call, 'node', known(node, call), params),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/lxc/{vmid}/rrddata',
    description: 'How a container was: load, memory, disk, network.',
    params: { node: nodeName, vmid: vmidSchema, ...query },
    permission: check('VM.Audit', '/vms/{vmid}'),
    returns: rows,
    cli: {
      command: ['ct', 'history'],
      positional: ['vmid', 'timeframe'],
      columns: ['time', 'cpu', 'mem', 'netin', 'netout', 'diskread', 'diskwrite'],
      id: 'time',
    },
    async handle({ vmid, ...params }, call) {
      await call.services.guests.config(asVmid(vmid), 'lxc')
      return history(call, 'guest', String(vmid), params)
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/qemu/{vmid}/rrddata',
    description: 'How a virtual machine was: load, memory, disk, network.',
    params: { node: nodeName, vmid: vmidSchema, ...query },
    permission: check('VM.Audit', '/vms/{vmid}'),
    returns: rows,
    cli: {
      command: ['vm', 'history'],
      positional: ['vmid', 'timeframe'],
      columns: ['time', 'cpu', 'mem', 'netin', 'netout', 'diskread', 'diskwrite'],
      id: 'time',
    },
    async handle({ vmid, ...params }, call) {
      await call.services.guests.config(asVmid(vmid))
      return history(call, 'guest', String(vmid), params)
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/storage/{storage}/rrddata',
    description: 'How full a storage was.',
    proxyTo: 'node',
    params: { node: nodeName, storage: storageId, ...query },
    permission: checkAny(['Datastore.Audit', 'Datastore.AllocateSpace'], '/storage/{storage}'),
    returns: rows,
    async handle({ storage, ...params }, call) {
      await call.services.storage.get(storage)
      return history(call, 'storage', storage, params)
    },
  }),
]
