/** `/nodes/{node}/subscription`: a key tools set and read back. Nothing depends on it. */
import { boolean, enumOf, integer, nothing, object, optional, string } from '#base/schema/schema.ts'
import { nodeName } from '#base/schema/standard.ts'
import { anyone, check } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'

const mayModify = check('Sys.Modify', '/nodes/{node}')
const at = { node: nodeName }

export const subscriptionEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/subscription',
    description: 'Whether the node was given a subscription key. None is needed.',
    proxyTo: 'node',
    params: at,
    permission: anyone,
    returns: object({
      status: enumOf(['new', 'notfound', 'active', 'invalid', 'expired', 'suspended'], { description: 'State.' }),
      message: optional(string({ description: 'The same in words.' })),
      key: optional(string({ description: 'The key; for those who may audit the node.' })),
      serverid: optional(string({ description: 'Number of the machine; for those who may audit the node.' })),
      checktime: optional(integer({ description: 'When the key was given, in seconds since 1970.' })),
    }),
    async handle({ node }, { services, may }) {
      const { key, serverid, ...open } = await services.subscriptions.of(node)
      if (!(await may(`/nodes/${node}`, 'Sys.Audit'))) return open
      return { ...open, ...(key === undefined ? {} : { key }), ...(serverid === undefined ? {} : { serverid }) }
    },
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/subscription',
    description: 'Look at the key again. There is nobody to ask about it, so nothing changes.',
    proxyTo: 'node',
    params: { ...at, force: optional(boolean({ description: 'Even when it was just looked at.', default: false })) },
    permission: mayModify,
    returns: nothing,
    handle: () => null,
  }),
  endpoint({
    method: 'PUT',
    path: '/nodes/{node}/subscription',
    description: 'Keep a subscription key.',
    proxyTo: 'node',
    params: {
      ...at,
      key: string({ description: 'The key.', pattern: /\s*pve([1248])([cbsp])-[0-9a-f]{10}\s*/, maxLength: 32 }),
    },
    permission: mayModify,
    returns: nothing,
    handle: ({ node, key }, { services }) => services.subscriptions.setKey(node, key).then(() => null),
  }),
  endpoint({
    method: 'DELETE',
    path: '/nodes/{node}/subscription',
    description: 'Forget the subscription key.',
    proxyTo: 'node',
    params: at,
    permission: mayModify,
    returns: nothing,
    handle: ({ node }, { services }) => services.subscriptions.remove(node).then(() => null),
  }),
]
