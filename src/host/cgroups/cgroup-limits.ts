/** Limits of a control group as files, in either world (see `cgroup.ts`). Pure but for one look at swap. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'

export type Controller = 'cpu' | 'cpuacct' | 'memory' | 'pids' | 'freezer' | 'blkio'

export type CgroupVersion = 'v1' | 'v2'

export interface GroupLimits {
  readonly memoryBytes?: number
  /** Beside the memory; needs `memoryBytes`. */
  readonly swapBytes?: number
  /** Share of the processors under contention: 2 to 262144, an ordinary group has 1024. */
  readonly cpuShares?: number
  /** Most processors it may keep busy: 1.5 is one and a half; -1 takes a limit away. */
  readonly cpuQuota?: number
  readonly pids?: number
}

/** One file of a group that keeps a limit. */
export interface LimitFile {
  readonly limit: keyof GroupLimits
  readonly controller: Controller
  readonly file: string
  readonly value: string
}

const PERIOD_US = 100_000

export function limitFiles(
  limits: GroupLimits,
  version: CgroupVersion,
): (readonly [limit: keyof GroupLimits, controller: Controller, file: string, value: string])[] {
  const files: (readonly [keyof GroupLimits, Controller, string, string])[] = []
  const { memoryBytes, swapBytes, cpuShares, cpuQuota, pids } = limits
  const isV2 = version === 'v2'
  if (memoryBytes !== undefined) {
    files.push([
      'memoryBytes',
      'memory',
      isV2 ? 'memory.max' : 'memory.limit_in_bytes',
      String(Math.floor(memoryBytes)),
    ])
  }
  if (memoryBytes !== undefined && swapBytes !== undefined) {
    const [file, bytes] = isV2
      ? ['memory.swap.max', swapBytes]
      : ['memory.memsw.limit_in_bytes', memoryBytes + swapBytes]
    files.push(['swapBytes', 'memory', file, String(Math.floor(bytes))])
  }
  if (cpuShares !== undefined) {
    const weight = sharesToWeight(cpuShares)
    files.push(['cpuShares', 'cpu', isV2 ? 'cpu.weight' : 'cpu.shares', String(isV2 ? weight : Math.round(cpuShares))])
  }
  if (cpuQuota !== undefined) {
    const isNone = cpuQuota < 0
    const quota = Math.round(cpuQuota * PERIOD_US)
    if (!isV2) files.push(['cpuQuota', 'cpu', 'cpu.cfs_period_us', String(PERIOD_US)])
    files.push([
      'cpuQuota',
      'cpu',
      isV2 ? 'cpu.max' : 'cpu.cfs_quota_us',
      isV2 ? `${isNone ? 'max' : quota} ${PERIOD_US}` : String(isNone ? -1 : quota),
    ])
  }
  if (pids !== undefined) files.push(['pids', 'pids', 'pids.max', String(pids)])
  return files
}

/** v1 counts 2 to 262144 around 1024, v2 counts 1 to 10000 around 100; the scale the OCI runtimes use. */
export function sharesToWeight(shares: number): number {
  const clamped = Math.min(262_144, Math.max(2, shares))
  return Math.round(1 + ((clamped - 2) * 9_999) / 262_142)
}

/** Whether memory can be held to an amount with swap: the file is there in a fresh group, if anywhere. */
export function countsSwap(top: string, version: CgroupVersion): boolean {
  // In the unified hierarchy the top itself has no limits.
  if (version === 'v2') return existsSync('/proc/swaps')
  return existsSync(join(top, 'memory.memsw.limit_in_bytes'))
}
