/** `/nodes/{node}/qemu/{vmid}/cloudinit`: what a guest is told about itself when it boots. */
import { Fault } from '#base/fault.ts'
import { asVmid, asVolumeId } from '#base/ids.ts'
import { enumOf, nothing, string } from '#base/schema/schema.ts'
import { snippetsOf } from '#guests/cloud-init/options.ts'
import { updateCloudInit } from '#operations/guest/cloud-init.ts'
import { check } from '#rest/endpoint.ts'
import { cloudInitPendingOf, pendingReply } from '#views/guest-config.ts'
import { holds, toRead } from '#views/volume-access.ts'
import type { Call } from '../../call.ts'
import { endpoint } from '../../call.ts'
import { guestAt } from './at.ts'

const root = '/nodes/{node}/qemu/{vmid}/cloudinit'
/** Shorter than clients wait for an answer. */
const answerLimitMs = 50_000

export const cloudInitEndpoints = [
  endpoint({
    method: 'GET',
    path: root,
    description: 'What cloud-init told a virtual machine, and what it would be told if its drive were written now.',
    proxyTo: 'node',
    params: guestAt,
    permission: check('VM.Audit', '/vms/{vmid}'),
    returns: pendingReply,
    cli: {
      command: ['vm', 'cloudinit', 'pending'],
      positional: ['vmid'],
      columns: ['key', 'value', 'pending', 'delete'],
      id: 'key',
      examples: ['vm cloudinit pending 100'],
    },
    handle: async ({ vmid }, { services }) => cloudInitPendingOf(await services.guests.config(asVmid(vmid))),
  }),
  endpoint({
    method: 'PUT',
    path: root,
    description: 'Write the cloud-init drive anew; a virtual machine that runs gets it as a new disc.',
    proxyTo: 'node',
    params: guestAt,
    permission: check('VM.Config.Cloudinit', '/vms/{vmid}'),
    returns: nothing,
    cli: { command: ['vm', 'cloudinit', 'update'], positional: ['vmid'], examples: ['vm cloudinit update 100'] },
    async handle({ vmid }, call) {
      const { guests, tasks } = call.services
      await guests.requireCloudInit(asVmid(vmid))
      const task = await call.start(updateCloudInit, { vmid })
      const { exitstatus = 'OK' } = await tasks.wait(task, { timeoutMs: answerLimitMs, signal: call.signal })
      if (exitstatus !== 'OK') throw new Fault('failed', exitstatus)
      return null
    },
  }),
  endpoint({
    method: 'GET',
    path: `${root}/dump`,
    description: 'One part of what the cloud-init drive would hold if it were written now; passwords are left out.',
    proxyTo: 'node',
    params: { ...guestAt, type: enumOf(['user', 'network', 'meta'], { description: 'Which part.' }) },
    permission: check('VM.Audit', '/vms/{vmid}'),
    returns: string({ description: 'The file.' }),
    cli: {
      command: ['vm', 'cloudinit', 'dump'],
      positional: ['vmid', 'type'],
      examples: ['vm cloudinit dump 100 user', 'vm cloudinit dump 100 network'],
    },
    async handle({ vmid, type }, call) {
      const { guests } = call.services
      const { options } = await guests.config(asVmid(vmid))
      await requireReadable(call, snippetsOf(options)[type])
      return guests.cloudInitPart(asVmid(vmid), type)
    },
  }),
]

/** Who may see a guest may not therefore see a snippet it uses. */
async function requireReadable(call: Call, snippet: string | undefined): Promise<void> {
  if (snippet === undefined || (await holds(toRead(asVolumeId(snippet)), call.may))) return
  throw new Fault('denied', `Permission check failed (/storage/${snippet.split(':')[0]}, Datastore.Allocate)`)
}
