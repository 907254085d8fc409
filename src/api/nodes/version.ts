/** `/nodes/{node}/version`: as `/version`, of one node. */
import { nodeName } from '#base/schema/standard.ts'
import { anyone } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'
import { versionNow, versionReply } from '../version.ts'

export const nodeVersionEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/version',
    description: 'Version of the API and of the product on a node.',
    proxyTo: 'node',
    params: { node: nodeName },
    permission: anyone,
    returns: versionReply,
    handle: () => versionNow,
  }),
]
