/** Memory that guests, or a guest and a program of the node, share: a file of a name in the node's shared memory. */
import { readPropertyString } from '#base/schema/property-string.ts'
import { integer, optional, string } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import { device, keyed } from './argument.ts'
import type { MachineKind } from './machine.ts'
import { pciPlace } from './pci.ts'

export const ivshmemFormat: PropertyFormat = {
  size: { schema: integer({ description: 'Size in MiB: a power of two.', minimum: 1, maximum: 65_536 }) },
  name: {
    schema: optional(
      string({
        description: 'Name of the memory; the id of the guest when absent.',
        pattern: /[a-zA-Z0-9-]+/,
        maxLength: 64,
      }),
    ),
  },
}

export interface SharedMemory {
  readonly path: string
  readonly sizeMiB: number
}

export function sharedMemoryOf(options: Options, vmid: number): SharedMemory | undefined {
  if (options.ivshmem === undefined) return undefined
  const { size, name = vmid } = readPropertyString(ivshmemFormat, options.ivshmem, 'ivshmem')
  return { path: `/dev/shm/pve-shm-${name}`, sizeMiB: Number(size) }
}

export function ivshmemError(options: Options): string | undefined {
  const { sizeMiB = 1 } = sharedMemoryOf(options, 0) ?? {}
  return Number.isInteger(Math.log2(sizeMiB)) ? undefined : `size must be a power of two in MiB, not ${sizeMiB}`
}

export function ivshmemToArgv(options: Options, machine: MachineKind, vmid: number): string[] {
  const memory = sharedMemoryOf(options, vmid)
  if (!memory) return []
  const backend = { id: 'shmem-ivshmem', 'mem-path': memory.path, size: `${memory.sizeMiB}M`, share: true }
  return [
    '-object',
    keyed('memory-backend-file', backend),
    ...device('ivshmem-plain', { id: 'ivshmem', memdev: 'shmem-ivshmem', ...pciPlace(machine, 'ivshmem') }),
  ]
}
