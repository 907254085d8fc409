/** `/nodes/{node}/lxc`: containers. There are none yet, which is what inventories that ask for both kinds are told. */
import { array, object } from '#base/schema/schema.ts'
import { nodeName, vmid } from '#base/schema/standard.ts'
import { anyone } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'

export const containerEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/lxc',
    description: 'Containers of a node; none, as long as this release runs virtual machines alone.',
    proxyTo: 'node',
    params: { node: nodeName },
    permission: anyone,
    returns: array(object({ vmid })),
    handle: () => Promise.resolve([]),
  }),
]
