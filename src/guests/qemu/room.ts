/**
 * Whether the node has the memory a guest may use. Asked before a start, because past this point the kernel
 * decides who must go, and it may choose another guest.
 */
import { humanSize, MiB } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import type { MemoryCounters } from '#host/programs/proc.ts'
import type { Options } from '../config.ts'
import { memoryMiBOf } from './memory.ts'

/**
 * @param purpose what for: `start` or `renew`
 * @throws Fault `exhausted` saying how much is needed and how much there is
 */
export function requireMemory(
  vmid: Vmid,
  options: Options,
  { availableBytes, swapFreeBytes }: MemoryCounters,
  purpose: 'start' | 'renew' = 'start',
): void {
  const neededBytes = memoryMiBOf(options) * MiB
  const thereBytes = availableBytes + swapFreeBytes
  if (neededBytes <= thereBytes) return
  throw new Fault(
    'exhausted',
    `not enough memory to ${purpose} VM ${vmid}: it needs ${humanSize(neededBytes)}, the node has ${humanSize(thereBytes)} available`,
    {
      remedy:
        purpose === 'start'
          ? 'Stop another guest, or give this one less memory.'
          : 'For a moment its memory is there twice: stop another guest, or stop this one and start it anew.',
    },
  )
}
