/** How much of the node a container may have. */
import { MiB } from '#base/bytes.ts'
import type { GroupLimits } from '#host/cgroups/cgroup-limits.ts'
import type { Options } from '../config.ts'

const [defaultMemoryMiB, defaultSwapMiB] = [512, 512]
/** A fork bomb ends here, long before the node runs out of processes. */
const processes = 4096

export function memoryBytesOf({ memory }: Options): number {
  return Number(memory ?? defaultMemoryMiB) * MiB
}

export function swapBytesOf({ swap }: Options): number {
  return Number(swap ?? defaultSwapMiB) * MiB
}

/** Processors it sees; undefined: all of the node's. */
export function coresOf({ cores }: Options): number | undefined {
  return cores === undefined ? undefined : Number(cores)
}

export function groupLimitsOf(options: Options): GroupLimits {
  const { cpulimit, cpuunits } = options
  return {
    memoryBytes: memoryBytesOf(options),
    swapBytes: swapBytesOf(options),
    // As of virtual machines: 100 is the ordinary weight of the unified hierarchy, where others have 1024 shares.
    cpuShares: Math.max(2, Math.round((Number(cpuunits ?? 100) * 1024) / 100)),
    ...(cpulimit === undefined || Number(cpulimit) === 0 ? {} : { cpuQuota: Number(cpulimit) }),
    pids: processes,
  }
}

/** What a limit that is gone looks like to a running container. */
export const noQuota = -1

/** The processors fewest others are held to, in their order: `0,2`. */
export function leastUsed(cores: number, online: readonly number[], taken: readonly (readonly number[])[]): string {
  const uses = (processor: number) => taken.filter((list) => list.includes(processor)).length
  const best = online.toSorted((a, b) => uses(a) - uses(b) || a - b).slice(0, cores)
  return best.toSorted((a, b) => a - b).join(',')
}

const limitNames = ['memory', 'swap', 'cpulimit', 'cpuunits']

/** Limits whose change a running container takes at once. */
export function liveLimits(running: Options, wanted: Options): string[] {
  return limitNames.filter((name) => running[name] !== wanted[name])
}

/** `0-2,5` as numbers. */
export function processorsIn(list: string): number[] {
  return list
    .trim()
    .split(',')
    .filter(Boolean)
    .flatMap((range) => {
      const [first = 0, last = first] = range.split('-').map(Number)
      return Array.from({ length: last - first + 1 }, (_, at) => first + at)
    })
}
