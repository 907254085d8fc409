/** The balloon: gives memory back to the node, and tells how much the guest really uses. */
import type { Options } from '../config.ts'
import { device } from './argument.ts'
import type { MachineKind } from './machine.ts'
import { pciPlace } from './pci.ts'

export const balloonPath = '/machine/peripheral/balloon0'

export function hasBalloon(options: Options): boolean {
  return options.balloon !== '0'
}

export function balloonToArgv(options: Options, machine: MachineKind): string[] {
  if (!hasBalloon(options)) return []
  return device('virtio-balloon-pci', {
    id: 'balloon0',
    ...pciPlace(machine, 'balloon0'),
    'free-page-reporting': true,
  })
}
