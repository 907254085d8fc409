/** `/nodes/{node}/qemu/{vmid}`: `sendkey`, `monitor`, `dbus-vmstate`. A hand on the guest's keyboard, and on QEMU itself. */
import { asVmid } from '#base/ids.ts'
import { enumOf, nothing, string } from '#base/schema/schema.ts'
import { pressKeys } from '#guests/qemu/keys.ts'
import { check, rootOnly } from '#rest/endpoint.ts'
import { endpoint } from '../../call.ts'
import { guestAt, skiplock } from './at.ts'
import { requireRoot } from './rights.ts'

export const monitorEndpoints = [
  endpoint({
    method: 'PUT',
    path: '/nodes/{node}/qemu/{vmid}/sendkey',
    description: 'Press keys on the guest’s keyboard, all at once.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      skiplock,
      key: string({ description: 'Keys, joined by -, as QEMU names them.', maxLength: 256 }),
    },
    permission: check('VM.Console', '/vms/{vmid}'),
    returns: nothing,
    cli: { command: ['vm', 'sendkey'], positional: ['vmid', 'key'], examples: ['vm sendkey 100 ctrl-alt-delete'] },
    async handle(params, call) {
      const { guests } = call.services
      const vmid = asVmid(params.vmid)
      requireRoot(call, params, {})
      if (params.skiplock !== true) await guests.requireUnlocked(vmid)
      await using monitor = await guests.qmp(vmid)
      await pressKeys(monitor, params.key)
      return null
    },
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/monitor',
    description: 'Give QEMU a command of its own console. It can reach whatever the guest’s process can.',
    proxyTo: 'node',
    params: { ...guestAt, command: string({ description: 'Command, as `info block`.', maxLength: 4096 }) },
    permission: rootOnly,
    returns: string({ description: 'What QEMU answered.' }),
    cli: { command: ['vm', 'monitor'], positional: ['vmid', 'command'], examples: ['vm monitor 100 "info block"'] },
    async handle({ vmid, command }, { services }) {
      await services.guests.config(asVmid(vmid))
      await using monitor = await services.guests.qmp(asVmid(vmid))
      return await monitor.execute<string>('human-monitor-command', { 'command-line': command })
    },
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/dbus-vmstate',
    description:
      'Open or close the message bus on which programs of this node give a running guest’s QEMU the state they hold for it.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      action: enumOf(['start', 'stop'], { description: 'Open it, or close it.' }),
    },
    permission: check('VM.Migrate', '/vms/{vmid}'),
    returns: nothing,
    async handle({ vmid, action }, { services }) {
      await services.guests.config(asVmid(vmid))
      await services.guests.setStateBus(asVmid(vmid), action === 'start')
      return null
    },
  }),
]
