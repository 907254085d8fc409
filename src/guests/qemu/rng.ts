/** Entropy for the guest. */
import { readPropertyString } from '#base/schema/property-string.ts'
import { enumOf, integer, optional } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import { device, keyed } from './argument.ts'
import type { MachineKind } from './machine.ts'
import { pciPlace } from './pci.ts'

export const rngFormat: PropertyFormat = {
  source: { schema: enumOf(['/dev/urandom', '/dev/random', '/dev/hwrng']), isDefaultKey: true },
  max_bytes: {
    schema: optional(
      integer({ description: 'Bytes per period; 0 is unlimited.', default: 1024, minimum: 0, maximum: 2 ** 31 }),
    ),
  },
  period: {
    schema: optional(integer({ description: 'Period in milliseconds.', default: 1000, minimum: 1, maximum: 2 ** 31 })),
  },
}

/** @param descriptor of a source QEMU may not open itself */
export function rngToArgv(options: Options, machine: MachineKind, descriptor?: number): string[] {
  if (options.rng0 === undefined) return []
  const { source, max_bytes: bytes = 1024, period = 1000 } = readPropertyString(rngFormat, options.rng0, 'rng0')
  const rate = bytes === 0 ? {} : { 'max-bytes': bytes, period }
  const filename = descriptor === undefined ? String(source) : `/dev/fdset/${descriptor}`
  return [
    ...(descriptor === undefined ? [] : ['-add-fd', keyed('', { fd: descriptor, set: descriptor })]),
    '-object',
    keyed('rng-random', { filename, id: 'rng0source' }),
    ...device('virtio-rng-pci', { id: 'rng0', rng: 'rng0source', ...rate, ...pciPlace(machine, 'rng0') }),
  ]
}
