/** `/nodes/{node}/qemu/{vmid}/status`: power. */
import { asVmid } from '#base/ids.ts'
import { Fault } from '#base/fault.ts'
import { array, boolean, integer, object, optional, string } from '#base/schema/schema.ts'
import { nodeName, storageId, upid } from '#base/schema/standard.ts'
import { resetGuest, resumeGuest, stopGuest, suspendGuest } from '#operations/guest/power.ts'
import { rebootGuest, shutdownGuest } from '#operations/guest/shutdown.ts'
import { startGuest } from '#operations/guest/start.ts'
import { anyone, check } from '#rest/endpoint.ts'
import { currentStatus, currentStatusOf } from '#views/guest-list.ts'
import type { Call } from '../../call.ts'
import { endpoint } from '../../call.ts'
import { guestAt, skiplock } from './at.ts'
import { requireRoot } from './rights.ts'

const verbs = ['current', 'reboot', 'reset', 'resume', 'shutdown', 'start', 'stop', 'suspend']
const mayPower = check('VM.PowerMgmt', '/vms/{vmid}')
const seconds = (description: string) => optional(integer({ description, minimum: 0, maximum: 86_400 }))
const keepActive = optional(boolean({ description: 'Leave storages active.', default: false }))
const migratedfrom = optional(nodeName)

/** The guest of the call, once it is known to exist and the caller may ignore its locks if that is wished. */
async function act(params: { vmid: number; skiplock?: boolean | undefined }, call: Call) {
  requireRoot(call, params, {})
  await call.services.guests.config(asVmid(params.vmid))
  return { vmid: params.vmid, skipLock: params.skiplock }
}

export const statusEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/qemu/{vmid}/status',
    description: 'What is below this path.',
    proxyTo: 'node',
    params: guestAt,
    permission: anyone,
    returns: array(object({ subdir: string() })),
    handle: () => verbs.map((subdir) => ({ subdir })),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/qemu/{vmid}/status/current',
    description: 'State of a virtual machine now.',
    proxyTo: 'node',
    params: guestAt,
    permission: check('VM.Audit', '/vms/{vmid}'),
    returns: currentStatus,
    cli: {
      command: ['vm', 'show'],
      positional: ['vmid'],
      id: 'vmid',
      examples: ['vm show 100', 'vm show 100 -o json'],
    },
    handle: async ({ vmid }, { services }) => currentStatusOf(await services.guests.status(asVmid(vmid), 'qemu')),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/status/start',
    description: 'Start a virtual machine.',
    proxyTo: 'node',
    params: { ...guestAt, skiplock, timeout: seconds('Seconds until it must have started.') },
    permission: mayPower,
    returns: upid,
    cli: { command: ['vm', 'start'], positional: ['vmid'], examples: ['vm start 100'] },
    handle: async (params, call) => call.start(startGuest, { ...(await act(params, call)), timeout: params.timeout }),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/status/stop',
    description: 'Pull the plug.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      skiplock,
      keepActive,
      migratedfrom,
      timeout: seconds('Seconds QEMU may take to end before it is killed.'),
      'overrule-shutdown': optional(boolean({ description: 'End a shutdown that is waiting.', default: false })),
    },
    permission: mayPower,
    returns: upid,
    cli: { command: ['vm', 'stop'], positional: ['vmid'], examples: ['vm stop 100'] },
    handle: async (params, call) => call.start(stopGuest, await act(params, call)),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/status/shutdown',
    description: 'Ask the guest to shut down, by its agent or its power button.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      skiplock,
      keepActive,
      timeout: seconds('Seconds it may take.'),
      forceStop: optional(boolean({ description: 'Pull the plug when it takes longer.', default: false })),
    },
    permission: mayPower,
    returns: upid,
    cli: {
      command: ['vm', 'shutdown'],
      positional: ['vmid'],
      examples: ['vm shutdown 100', 'vm shutdown 100 --timeout 30 --forceStop 1'],
    },
    handle: async (params, call) => {
      const { timeout, forceStop } = params
      return call.start(shutdownGuest, { ...(await act(params, call)), timeout, forceStop })
    },
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/status/reboot',
    description: 'Shut the guest down and start it again, with what was pending.',
    proxyTo: 'node',
    params: { ...guestAt, timeout: seconds('Seconds the shutdown may take.') },
    permission: mayPower,
    returns: upid,
    cli: { command: ['vm', 'reboot'], positional: ['vmid'], examples: ['vm reboot 100'] },
    handle: async (params, call) => call.start(rebootGuest, { ...(await act(params, call)), timeout: params.timeout }),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/status/reset',
    description: 'Press the reset button.',
    proxyTo: 'node',
    params: { ...guestAt, skiplock },
    permission: mayPower,
    returns: upid,
    cli: { command: ['vm', 'reset'], positional: ['vmid'], examples: ['vm reset 100'] },
    handle: async (params, call) => call.start(resetGuest, await act(params, call)),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/status/suspend',
    description: 'Halt the processors; memory stays.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      skiplock,
      todisk: optional(boolean({ description: 'Write memory to disk and stop.', default: false })),
      statestorage: optional({ ...storageId, requires: 'todisk' }),
    },
    permission: mayPower,
    returns: upid,
    cli: { command: ['vm', 'suspend'], positional: ['vmid'], examples: ['vm suspend 100'] },
    handle: async (params, call) => {
      if (params.todisk === true) throw new Fault('failed', 'suspending to disk is not supported by this release')
      return call.start(suspendGuest, await act(params, call))
    },
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/status/resume',
    description: 'Let halted processors go on.',
    proxyTo: 'node',
    params: { ...guestAt, skiplock, nocheck: optional(boolean({ description: 'Do not check the configuration.' })) },
    permission: mayPower,
    returns: upid,
    cli: { command: ['vm', 'resume'], positional: ['vmid'], examples: ['vm resume 100'] },
    handle: async (params, call) => call.start(resumeGuest, await act(params, call)),
  }),
]
