/** Our own branch: what is staged for a node's network, and keeping a change of it. */
import { integer, nothing, object, optional, string } from '#base/schema/schema.ts'
import { nodeName, upid } from '#base/schema/standard.ts'
import { confirmDefaultSeconds, confirmMostSeconds } from '#network/machine/confirmation.ts'
import { check } from '#rest/endpoint.ts'
import { applyStagedNetwork } from '../nodes/network-rights.ts'
import { endpoint } from '../call.ts'

const mayModify = check('Sys.Modify', '/nodes/{node}')
const at = { node: nodeName }

export const networkChangeEndpoints = [
  endpoint({
    method: 'GET',
    path: '/hako/network/{node}',
    description: 'What is staged for the network of a node, and what waits for confirmation.',
    proxyTo: 'node',
    params: at,
    permission: check('Sys.Audit', '/nodes/{node}'),
    isOwn: true,
    returns: object({
      changes: string({ description: 'The difference between what is in force and what is staged; empty: none.' }),
      upid: optional(string({ description: 'Task that applies a change now.' })),
      'confirm-until': optional(
        integer({ description: 'It is put back then unless it is confirmed, in seconds since 1970.' }),
      ),
    }),
    cli: { command: ['network', 'diff'], raw: 'changes' },
    async handle(_params, { services: { hostNetwork } }) {
      const [{ changes }, notice] = [await hostNetwork.list(), await hostNetwork.confirmations.current()]
      const until = notice?.untilMs
      return {
        changes,
        ...(notice ? { upid: notice.upid } : {}),
        ...(until === undefined ? {} : { 'confirm-until': Math.ceil(until / 1000) }),
      }
    },
  }),
  endpoint({
    method: 'POST',
    path: '/hako/network/{node}/apply',
    description: 'Apply what is staged for the network of a node, and say how long to wait for confirmation.',
    proxyTo: 'node',
    params: {
      ...at,
      'confirm-within': optional(
        integer({
          description: 'Seconds until it is put back unless it is confirmed; 0: it stays without confirmation.',
          minimum: 0,
          maximum: confirmMostSeconds,
          default: confirmDefaultSeconds,
        }),
      ),
    },
    permission: mayModify,
    isOwn: true,
    returns: upid,
    cli: {
      command: ['network', 'apply'],
      examples: ['network apply', 'network apply --confirm-within 300', 'network confirm'],
    },
    handle: (params, call) => applyStagedNetwork(call, params['confirm-within'] ?? confirmDefaultSeconds),
  }),
  endpoint({
    method: 'POST',
    path: '/hako/network/{node}/confirm',
    description: 'Keep the change of the network that was just applied.',
    proxyTo: 'node',
    params: at,
    permission: mayModify,
    isOwn: true,
    returns: nothing,
    cli: { command: ['network', 'confirm'] },
    handle: (_params, { services, who: { user }, remoteAddress }) =>
      services.hostNetwork.confirmations.confirm({ user, remoteAddress }).then(() => null),
  }),
]
