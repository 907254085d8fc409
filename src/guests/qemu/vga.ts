/** Display and pointer. The screen is served as VNC on a socket in the guest's run directory. */
import type { Errors } from '#base/schema/check.ts'
import { readPropertyString } from '#base/schema/property-string.ts'
import { enumOf, integer, optional } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import { isOn } from '../config.ts'
import { device } from './argument.ts'
import type { MachineKind } from './machine.ts'
import { pciPlace } from './pci.ts'

const types = 'cirrus qxl qxl2 qxl3 qxl4 none serial0 serial1 serial2 serial3 std virtio virtio-gl vmware'.split(' ')

export const vgaFormat: PropertyFormat = {
  type: { schema: optional(enumOf(types, { description: 'Kind of display.', default: 'std' })), isDefaultKey: true },
  memory: { schema: optional(integer({ description: 'Display memory in MiB.', minimum: 4, maximum: 512 })) },
  clipboard: { schema: optional(enumOf(['vnc'])) },
}

function vgaOf(options: Options): { type: string; memoryMiB: number | undefined } {
  const values = options.vga === undefined ? {} : readPropertyString(vgaFormat, options.vga, 'vga')
  return {
    type: String(values.type ?? 'std'),
    memoryMiB: typeof values.memory === 'number' ? values.memory : undefined,
  }
}

export function vgaErrors(options: Options): Errors {
  const { type } = vgaOf(options)
  if (/^qxl|^virtio-gl$/.test(type)) {
    return { vga: `display '${type}' is not supported by this release: use std, virtio, vmware, cirrus or serial0` }
  }
  if (type.startsWith('serial') && options[type] === undefined) {
    return { vga: `display '${type}' needs that serial port: set ${type} to 'socket'` }
  }
  return {}
}

/** In the guest's run directory. Without a password: only root and the guest's own QEMU reach it. */
export const screenSocket = 'vnc.sock'

/** True when the guest's console is a serial port, or it has none. */
export function isHeadless(options: Options): boolean {
  return /^(none|serial\d)$/.test(vgaOf(options).type)
}

export function vgaToArgv(options: Options, machine: MachineKind, runDir: string): string[] {
  if (isHeadless(options)) return ['-display', 'none']
  const { type, memoryMiB } = vgaOf(options)
  const place = pciPlace(machine, 'vga')
  const drivers: Readonly<Record<string, string>> = {
    std: 'VGA',
    cirrus: 'cirrus-vga',
    vmware: 'vmware-svga',
    virtio: 'virtio-vga',
  }
  const memory = type === 'virtio' ? {} : { vgamem_mb: memoryMiB }
  return [
    '-display',
    'none',
    '-vnc',
    `unix:${runDir}/${screenSocket}`,
    ...(options.keyboard === undefined ? [] : ['-k', options.keyboard]),
    ...device(drivers[type] ?? 'VGA', { id: 'vga', ...memory, ...place }),
  ]
}

/** An absolute pointer, so that the cursor of a remote screen stays where the mouse is. */
export function tabletToArgv(options: Options, machine: MachineKind): string[] {
  if (isHeadless(options) || !isOn(options.tablet, true)) return []
  return [
    ...device('piix3-usb-uhci', { id: 'uhci', ...pciPlace(machine, 'uhci') }),
    ...device('usb-tablet', { id: 'tablet', bus: 'uhci.0', port: 1 }),
  ]
}
