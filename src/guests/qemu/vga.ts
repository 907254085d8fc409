/**
 * Display and pointer. The screen is served as VNC on a socket in the guest's run directory; some displays are served
 * by SPICE as well (`spice.ts`).
 */
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
  clipboard: { schema: optional(enumOf(['vnc'], { description: 'Who shares the clipboard instead of SPICE.' })) },
}

interface Display {
  readonly type: string
  readonly memoryMiB: number | undefined
  /** Viewers by VNC share the guest's clipboard. */
  readonly isVncClipboard: boolean
}

export function vgaOf(options: Options): Display {
  const values = options.vga === undefined ? {} : readPropertyString(vgaFormat, options.vga, 'vga')
  return {
    type: String(values.type ?? 'std'),
    memoryMiB: typeof values.memory === 'number' ? values.memory : undefined,
    isVncClipboard: values.clipboard === 'vnc',
  }
}

export function vgaErrors(options: Options): Errors {
  const { type, isVncClipboard } = vgaOf(options)
  if (type === 'virtio-gl') {
    return {
      vga: `display '${type}' is not supported by this release: use std, virtio, qxl, vmware, cirrus or serial0`,
    }
  }
  if (isVncClipboard && isHeadless(options)) return { vga: `clipboard 'vnc' needs a screen, and '${type}' has none` }
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

/** True when the guest is looked at by SPICE as well: its display is one made for that. */
export function hasSpice(options: Options): boolean {
  return /^(qxl[234]?|virtio)$/.test(vgaOf(options).type)
}

/** Windows wants a card for each screen, everybody else one card with several outputs. */
function qxlCards(options: Options): { outputs: number; memoryMiB: number }[] {
  const { type, memoryMiB = 16 } = vgaOf(options)
  if (!type.startsWith('qxl')) return []
  const heads = Number(type.slice('qxl'.length) || 1)
  if (isWindows(options)) return Array.from({ length: heads }, () => ({ outputs: 1, memoryMiB }))
  return [{ outputs: heads, memoryMiB: Math.min(memoryMiB * heads, largestFrameMiB) }]
}

const isWindows = ({ ostype = '' }: Options) => ostype.startsWith('w')

/** Beyond, the memory of the card would not fit where cards are. */
const largestFrameMiB = 512

/** What QEMU keeps for the screens beside the guest's memory, where that is much. */
export function displayMemoryMiB(options: Options): number {
  return qxlCards(options).reduce((sum, { memoryMiB }) => sum + 6 * memoryMiB, 0)
}

function qxlToArgv(options: Options, machine: MachineKind): string[][] {
  return qxlCards(options).map(({ outputs, memoryMiB }, index) => {
    const name = index === 0 ? 'vga' : `vga${index}`
    // One part is the frame; drawing commands and what they name take the rest.
    const memory = { vgamem_mb: memoryMiB, ram_size_mb: 4 * memoryMiB, vram_size_mb: 2 * memoryMiB }
    const many = outputs === 1 ? {} : { max_outputs: outputs }
    return device(index === 0 ? 'qxl-vga' : 'qxl', { id: name, ...memory, ...many, ...pciPlace(machine, name) })
  })
}

/** Cards of further screens: behind a bridge, so after those. */
export function furtherScreensToArgv(options: Options, machine: MachineKind): string[] {
  return qxlToArgv(options, machine).slice(1).flat()
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
    ...(qxlToArgv(options, machine)[0] ?? device(drivers[type] ?? 'VGA', { id: 'vga', ...memory, ...place })),
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
