/** `/cluster/bulk-action`: many guests at once, wherever they are. */
import { Fault } from '#base/fault.ts'
import { array, boolean, integer, object, optional, string } from '#base/schema/schema.ts'
import { storageId, upid, vmid } from '#base/schema/standard.ts'
import { bulkShutdown, bulkStart, bulkSuspend } from '#operations/node/all-guests.ts'
import { anyone } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'
import { allowedGuests } from '../nodes/bulk.ts'

const workers = (description: string) => optional(integer({ description, minimum: 1, maximum: 64, default: 4 }))
const shared = {
  vms: optional(array(vmid, { description: 'Only these guests.' })),
  'max-workers': workers('Guests handled at once.'),
  maxworkers: workers('Older spelling of max-workers.'),
}
const children = <const Path extends string>(path: Path, names: readonly string[]) =>
  endpoint({
    method: 'GET',
    path,
    description: 'What is below this path.',
    params: {},
    permission: anyone,
    returns: array(object({ name: string() })),
    handle: () => names.map((name) => ({ name })),
  })

export const bulkActionEndpoints = [
  children('/cluster/bulk-action', ['guest']),
  children('/cluster/bulk-action/guest', ['shutdown', 'start', 'suspend']),
  endpoint({
    method: 'POST',
    path: '/cluster/bulk-action/guest/start',
    description:
      'Start guests, or go on with those that are halted, in their order. Needs VM.PowerMgmt on each, or on /.',
    params: {
      ...shared,
      timeout: optional(integer({ description: 'Seconds each may take to start.', minimum: 1, maximum: 7200 })),
    },
    permission: anyone,
    returns: upid,
    cli: { command: ['guests', 'start'], examples: ['guests start --vms 100,101'] },
    handle: async ({ timeout, ...params }, call) =>
      call.start(bulkStart, { vms: await allowedGuests(params.vms, call, '/'), timeout, ...paceOf(params) }),
  }),
  endpoint({
    method: 'POST',
    path: '/cluster/bulk-action/guest/shutdown',
    description: 'Shut down guests, in the reverse of their order. Needs VM.PowerMgmt on each, or on /.',
    params: {
      ...shared,
      timeout: optional(
        integer({ description: 'Seconds each may take to shut down.', minimum: 0, maximum: 7200, default: 180 }),
      ),
      'force-stop': optional(boolean({ description: 'Stop those that take longer.', default: true })),
    },
    permission: anyone,
    returns: upid,
    cli: { command: ['guests', 'shutdown'], examples: ['guests shutdown --vms 100,101 --timeout 60'] },
    handle: async ({ timeout, 'force-stop': forceStop, ...params }, call) =>
      call.start(bulkShutdown, {
        vms: await allowedGuests(params.vms, call, '/'),
        timeout,
        forceStop,
        ...paceOf(params),
      }),
  }),
  endpoint({
    method: 'POST',
    path: '/cluster/bulk-action/guest/suspend',
    description: 'Halt the processors of guests; their memory stays. Needs VM.PowerMgmt on each, or on /.',
    params: {
      ...shared,
      'to-disk': optional(boolean({ description: 'Write memory to disk and stop.', default: false })),
      statestorage: optional({ ...storageId, requires: 'to-disk' }),
    },
    permission: anyone,
    returns: upid,
    cli: { command: ['guests', 'suspend'], examples: ['guests suspend --vms 100,101'] },
    async handle({ 'to-disk': isToDisk, ...params }, call) {
      if (isToDisk === true) throw new Fault('failed', 'suspending to disk is not supported by this release')
      return call.start(bulkSuspend, { vms: await allowedGuests(params.vms, call, '/'), ...paceOf(params) })
    },
  }),
]

interface Pace {
  readonly 'max-workers'?: number | undefined
  readonly maxworkers?: number | undefined
}

function paceOf({ 'max-workers': now, maxworkers: older }: Pace) {
  return { maxWorkers: now ?? older }
}
