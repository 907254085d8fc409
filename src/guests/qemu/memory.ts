/** Memory: its size, and how much the guest's control group may use in all. */
import type { Errors } from '#base/schema/check.ts'
import { MiB } from '#base/bytes.ts'
import { readPropertyString } from '#base/schema/property-string.ts'
import { integer } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import type { Accelerator } from './machine.ts'
import { translationCacheMiB } from './machine.ts'
import { displayMemoryMiB } from './vga.ts'

export const memoryFormat: PropertyFormat = {
  current: {
    schema: integer({ description: 'Memory in MiB.', default: 512, minimum: 16, maximum: 4_178_944 }),
    isDefaultKey: true,
  },
}

export function memoryMiBOf(options: Options): number {
  if (options.memory === undefined) return 512
  return Number(readPropertyString(memoryFormat, options.memory, 'memory').current)
}

export function memoryErrors(options: Options): Errors {
  const size = memoryMiBOf(options)
  if (options.balloon !== undefined && Number(options.balloon) > size) {
    return { balloon: `value must not be larger than memory, which is ${size} MiB` }
  }
  return {}
}

/**
 * What QEMU may use beside the guest's memory: device state, block cache, display, and under software
 * emulation the translated code. Generous on purpose: the limit is there to contain a leak or an attack,
 * and a guest killed for a few MiB would be worse than what it guards against.
 */
export function memoryLimitBytes(options: Options, accelerator: Accelerator): number {
  const size = memoryMiBOf(options)
  const emulation = accelerator === 'tcg' ? translationCacheMiB : 0
  return Math.ceil(size + size / 16 + 512 + emulation + displayMemoryMiB(options)) * MiB
}
