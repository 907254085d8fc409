/** A sound card. What it plays is heard by nobody but a viewer by SPICE; without one the guest plays into the void. */
import { readPropertyString } from '#base/schema/property-string.ts'
import { enumOf, optional } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import { device, keyed } from './argument.ts'
import type { MachineKind } from './machine.ts'
import { pciPlace } from './pci.ts'
import { hasSpice } from './vga.ts'

export const audioFormat: PropertyFormat = {
  device: { schema: enumOf(['ich9-intel-hda', 'intel-hda', 'AC97'], { description: 'Sound card.' }) },
  driver: { schema: optional(enumOf(['spice', 'none'], { description: 'Who hears it.', default: 'spice' })) },
}

export function audioToArgv(options: Options, machine: MachineKind): string[] {
  if (options.audio0 === undefined) return []
  const { device: card, driver } = readPropertyString(audioFormat, options.audio0, 'audio0')
  const audiodev = 'audio0-backend'
  const isHeard = driver !== 'none' && hasSpice(options)
  const argv = ['-audiodev', keyed(isHeard ? 'spice' : 'none', { id: audiodev })]
  const place = pciPlace(machine, 'audio0')
  if (card === 'AC97') return [...argv, ...device('AC97', { id: 'audio0', audiodev, ...place })]
  return [
    ...argv,
    ...device(String(card), { id: 'audio0', ...place }),
    ...device('hda-micro', { id: 'audio0-codec0', bus: 'audio0.0', cad: 0, audiodev }),
    ...device('hda-duplex', { id: 'audio0-codec1', bus: 'audio0.0', cad: 1, audiodev }),
  ]
}
