/**
 * `/hako/machines`: what Proxmox VE's API has no words for. There a guest moves to another node; that one moves into a
 * fresh process where it is, `migrate` refuses.
 */
import { asVmid } from '#base/ids.ts'
import { array, boolean, object, optional, string } from '#base/schema/schema.ts'
import { nodeName, upid, vmid } from '#base/schema/standard.ts'
import { renewGuest } from '#operations/guest/renew.ts'
import { anyone, check } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'

const at = { node: nodeName, vmid }

export const renewalEndpoints = [
  endpoint({
    method: 'GET',
    path: '/hako/machines/{node}/{vmid}',
    description: 'What is below this path.',
    proxyTo: 'node',
    params: at,
    permission: anyone,
    returns: array(object({ name: string() })),
    isOwn: true,
    handle: () => [{ name: 'renew' }],
  }),
  endpoint({
    method: 'GET',
    path: '/hako/machines/{node}/{vmid}/renew',
    description: 'Whether a running virtual machine should go on in a fresh QEMU, and what keeps it from that.',
    proxyTo: 'node',
    params: at,
    permission: check('VM.Audit', '/vms/{vmid}'),
    returns: object({
      running: boolean({ description: 'It runs; otherwise its next start is as good.' }),
      'running-qemu': optional(string({ description: 'Version of the running QEMU.' })),
      outdated: optional(boolean({ description: 'An update has replaced that QEMU since.' })),
      obstacles: array(
        object({
          what: string({ description: 'Option, or part, it is about.' }),
          reason: string({ description: 'Why it cannot go along.' }),
          remedy: string({ description: 'Remedy.' }),
        }),
      ),
    }),
    isOwn: true,
    cli: { command: ['vm', 'renewable'], positional: ['vmid'], examples: ['vm renewable 100'] },
    async handle(params, { services: { guests } }) {
      const id = asVmid(params.vmid)
      const { state } = await guests.status(id, 'qemu')
      if (state.state !== 'running') return { running: false, obstacles: [] }
      const { qemuVersion, isOutdated } = state
      const obstacles = await guests.renewals.obstacles(id)
      return { running: true, 'running-qemu': qemuVersion, outdated: isOutdated, obstacles }
    },
  }),
  endpoint({
    method: 'POST',
    path: '/hako/machines/{node}/{vmid}/renew',
    description: 'Let a running virtual machine go on in a fresh QEMU process, without a stop.',
    proxyTo: 'node',
    params: at,
    // It is less than to stop it and to start it again.
    permission: check('VM.PowerMgmt', '/vms/{vmid}'),
    returns: upid,
    isOwn: true,
    cli: { command: ['vm', 'renew'], positional: ['vmid'], examples: ['vm renew 100'] },
    async handle(params, call) {
      await call.services.guests.config(asVmid(params.vmid))
      return call.start(renewGuest, { vmid: params.vmid })
    },
  }),
]
