/** `/nodes/{node}/lxc/{vmid}/status`: power. */
import { asVmid } from '#base/ids.ts'
import { array, boolean, integer, object, optional, string } from '#base/schema/schema.ts'
import { upid } from '#base/schema/standard.ts'
import { resumeContainer, stopContainer, suspendContainer } from '#operations/guest/power.ts'
import { rebootContainer, shutdownContainer } from '#operations/guest/shutdown.ts'
import { startContainer } from '#operations/guest/start.ts'
import { anyone, check } from '#rest/endpoint.ts'
import { containerStatus, containerStatusOf } from '#views/guest-list.ts'
import type { Call } from '../../call.ts'
import { endpoint } from '../../call.ts'
import { guestAt, skiplock } from '../qemu/at.ts'
import { requireRoot } from './rights.ts'

const verbs = ['current', 'reboot', 'resume', 'shutdown', 'start', 'stop', 'suspend']
const mayPower = check('VM.PowerMgmt', '/vms/{vmid}')
const seconds = (description: string) => optional(integer({ description, minimum: 0, maximum: 86_400 }))

/** The guest of the call, once it is known to exist and the caller may ignore its locks if that is wished. */
async function act(params: { vmid: number; skiplock?: boolean | undefined }, call: Call) {
  requireRoot(call, { skiplock: params.skiplock }, {})
  await call.services.guests.config(asVmid(params.vmid), 'lxc')
  return { vmid: params.vmid, skipLock: params.skiplock }
}

export const statusEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/lxc/{vmid}/status',
    description: 'What is below this path.',
    proxyTo: 'node',
    params: guestAt,
    permission: anyone,
    returns: array(object({ subdir: string() })),
    handle: () => verbs.map((subdir) => ({ subdir })),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/lxc/{vmid}/status/current',
    description: 'State of a container now.',
    proxyTo: 'node',
    params: guestAt,
    permission: check('VM.Audit', '/vms/{vmid}'),
    returns: containerStatus,
    cli: {
      command: ['ct', 'show'],
      positional: ['vmid'],
      id: 'vmid',
      examples: ['ct show 200', 'ct show 200 -o json'],
    },
    handle: async ({ vmid }, { services }) => containerStatusOf(await services.guests.status(asVmid(vmid), 'lxc')),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/lxc/{vmid}/status/start',
    description: 'Start a container.',
    proxyTo: 'node',
    params: { ...guestAt, skiplock, debug: optional(boolean({ description: 'Tell more of it.', default: false })) },
    permission: mayPower,
    returns: upid,
    cli: { command: ['ct', 'start'], positional: ['vmid'], examples: ['ct start 200'] },
    handle: async (params, call) => call.start(startContainer, await act(params, call)),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/lxc/{vmid}/status/stop',
    description: 'End all that runs in a container, at once.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      skiplock,
      'overrule-shutdown': optional(boolean({ description: 'End a shutdown that is waiting.', default: false })),
    },
    permission: mayPower,
    returns: upid,
    cli: { command: ['ct', 'stop'], positional: ['vmid'], examples: ['ct stop 200'] },
    handle: async (params, call) => call.start(stopContainer, await act(params, call)),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/lxc/{vmid}/status/shutdown',
    description: 'Tell the container’s init to shut down.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      timeout: optional(integer({ description: 'Seconds it may take.', default: 60, minimum: 0, maximum: 86_400 })),
      forceStop: optional(boolean({ description: 'Stop it when it takes longer.', default: false })),
    },
    permission: mayPower,
    returns: upid,
    cli: {
      command: ['ct', 'shutdown'],
      positional: ['vmid'],
      examples: ['ct shutdown 200', 'ct shutdown 200 --timeout 30 --forceStop 1'],
    },
    handle: async (params, call) => {
      const { timeout, forceStop } = params
      return call.start(shutdownContainer, { ...(await act(params, call)), timeout, forceStop })
    },
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/lxc/{vmid}/status/reboot',
    description: 'Shut the container down and start it again, with what was pending.',
    proxyTo: 'node',
    params: { ...guestAt, timeout: seconds('Seconds the shutdown may take.') },
    permission: mayPower,
    returns: upid,
    cli: { command: ['ct', 'reboot'], positional: ['vmid'], examples: ['ct reboot 200'] },
    handle: async (params, call) =>
      call.start(rebootContainer, { ...(await act(params, call)), timeout: params.timeout }),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/lxc/{vmid}/status/suspend',
    description: 'Halt every process of a container where it is; memory stays.',
    proxyTo: 'node',
    params: guestAt,
    permission: mayPower,
    returns: upid,
    cli: { command: ['ct', 'suspend'], positional: ['vmid'], examples: ['ct suspend 200'] },
    handle: async (params, call) => call.start(suspendContainer, await act(params, call)),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/lxc/{vmid}/status/resume',
    description: 'Let the processes of a suspended container go on.',
    proxyTo: 'node',
    params: guestAt,
    permission: mayPower,
    returns: upid,
    cli: { command: ['ct', 'resume'], positional: ['vmid'], examples: ['ct resume 200'] },
    handle: async (params, call) => call.start(resumeContainer, await act(params, call)),
  }),
]
