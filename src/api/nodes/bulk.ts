/** `/nodes/{node}/{startall,stopall,suspendall}`: all guests of a node at once. */
import { Fault } from '#base/fault.ts'
import { splitList } from '#base/schema/formats.ts'
import { boolean, integer, optional, string } from '#base/schema/schema.ts'
import { nodeName, upid } from '#base/schema/standard.ts'
import { startAll, stopAll, suspendAll } from '#operations/node/all-guests.ts'
import { anyone } from '#rest/endpoint.ts'
import { type Call, endpoint } from '../call.ts'

const shared = {
  node: nodeName,
  vms: optional(string({ description: 'Only these guests.', format: 'pve-vmid-list', maxLength: 16_384 })),
  'max-workers': optional(integer({ description: 'Guests handled at once.', minimum: 1, maximum: 64 })),
}

export const bulkEndpoints = [
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/startall',
    description: 'Start the guests that start at boot, in their order. Needs VM.PowerMgmt on each, or on /vms.',
    proxyTo: 'node',
    params: {
      ...shared,
      force: optional(boolean({ description: 'Also guests that do not start at boot.', default: false })),
    },
    permission: anyone,
    returns: upid,
    cli: { command: ['node', 'start-all'], positional: ['node'] },
    async handle({ force, ...params }, call) {
      const vms = await allowedGuests(listed(params.vms), call)
      return call.start(startAll, { vms, force, maxWorkers: params['max-workers'] })
    },
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/stopall',
    description: 'Shut down all guests, in the reverse of their order. Needs VM.PowerMgmt on each, or on /vms.',
    proxyTo: 'node',
    params: {
      ...shared,
      timeout: optional(
        integer({ description: 'Seconds each may take to shut down.', minimum: 0, maximum: 7200, default: 180 }),
      ),
      'force-stop': optional(boolean({ description: 'Stop those that take longer.', default: true })),
    },
    permission: anyone,
    returns: upid,
    cli: { command: ['node', 'stop-all'], positional: ['node'] },
    async handle({ timeout, ...params }, call) {
      const vms = await allowedGuests(listed(params.vms), call)
      const how = { forceStop: params['force-stop'], maxWorkers: params['max-workers'] }
      return call.start(stopAll, { vms, timeout, ...how })
    },
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/suspendall',
    description: 'Halt the processors of all guests. Needs VM.PowerMgmt on each, or on /vms.',
    proxyTo: 'node',
    params: shared,
    permission: anyone,
    returns: upid,
    async handle(params, call) {
      const vms = await allowedGuests(listed(params.vms), call)
      return call.start(suspendAll, { vms, maxWorkers: params['max-workers'] })
    },
  }),
]

const listed = (text: string | undefined) => (text === undefined ? undefined : splitList(text).map(Number))

/** As PVE: whoever holds the right on all guests may name none; everybody else names guests he holds it on. */
export async function allowedGuests(
  named: readonly number[] | undefined,
  { may }: Call,
  everything: '/' | '/vms' = '/vms',
): Promise<readonly number[] | undefined> {
  if (await may(everything, 'VM.PowerMgmt')) return named
  if (named === undefined || named.length === 0) throw refused(everything)
  for (const vmid of named) if (!(await may(`/vms/${vmid}`, 'VM.PowerMgmt'))) throw refused(`/vms/${vmid}`)
  return named
}

function refused(path: string): Fault {
  return new Fault('denied', `Permission check failed (${path}, VM.PowerMgmt)`)
}
