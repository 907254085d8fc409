/** The guest agent's channel. */
import { readPropertyString } from '#base/schema/property-string.ts'
import { boolean, enumOf, optional } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import { device, keyed } from './argument.ts'
import type { MachineKind } from './machine.ts'
import { pciPlace } from './pci.ts'

export const agentFormat: PropertyFormat = {
  enabled: { schema: boolean({ description: 'Talk to the guest agent.', default: false }), isDefaultKey: true },
  fstrim_cloned_disks: { schema: optional(boolean({ default: false })) },
  'freeze-fs': { schema: optional(boolean({ description: 'Freeze file systems for a backup.', default: true })) },
  'freeze-fs-on-backup': { schema: optional(boolean()), alias: 'freeze-fs' },
  'guest-fsfreeze': { schema: optional(boolean()), alias: 'freeze-fs' },
  type: { schema: optional(enumOf(['virtio', 'isa'], { default: 'virtio' })) },
}

export interface AgentSettings {
  readonly isEnabled: boolean
  /** Freeze the guest's file systems while a backup takes its point in time. */
  readonly freezes: boolean
  readonly type: 'virtio' | 'isa'
}

export function agentOf(options: Options): AgentSettings {
  const values = options.agent === undefined ? {} : readPropertyString(agentFormat, options.agent, 'agent')
  return {
    isEnabled: values.enabled === true,
    freezes: values['freeze-fs'] !== false,
    type: values.type === 'isa' ? 'isa' : 'virtio',
  }
}

export function agentToArgv(options: Options, machine: MachineKind, socket: string): string[] {
  const { isEnabled, type } = agentOf(options)
  if (!isEnabled) return []
  const chardev = ['-chardev', keyed('socket', { id: 'qga0', path: socket, server: 'on', wait: 'off' })]
  if (type === 'isa') return [...chardev, ...device('isa-serial', { chardev: 'qga0' })]
  return [
    ...chardev,
    ...device('virtio-serial-pci', { id: 'qga0bus', ...pciPlace(machine, 'virtio-serial') }),
    ...device('virtserialport', { chardev: 'qga0', bus: 'qga0bus.0', name: 'org.qemu.guest_agent.0' }),
  ]
}
