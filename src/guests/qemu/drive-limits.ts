/** How fast a drive may be. */
import { MiB } from '#base/bytes.ts'
import type { Drive } from './drive.ts'

/** What limits a drive: keys that can change while the guest runs. */
export function isLimitKey(key: string): boolean {
  return /^(?:m?bps|iops)(?:_|$)/.test(key)
}

/** Arguments of QMP `block_set_io_throttle`; undefined when the drive has no limits. */
export function throttleOf(drive: Drive): Record<string, string | number> | undefined {
  const { values } = drive
  const number = (name: string) => (typeof values[name] === 'number' ? Number(values[name]) : undefined)
  const bytes = (name: string) => number(`mbps${name}`)
  const result: Record<string, string | number> = { id: drive.name }
  let hasLimit = false
  for (const side of ['', '_rd', '_wr']) {
    const megabytes = bytes(side)
    const rate = number(`bps${side}`) ?? (megabytes === undefined ? undefined : Math.round(megabytes * MiB))
    const burst = bytes(`${side}_max`)
    const limits = {
      [`bps${side}`]: rate,
      [`iops${side}`]: number(`iops${side}`),
      [`bps${side}_max`]: burst === undefined ? undefined : Math.round(burst * MiB),
      [`iops${side}_max`]: number(`iops${side}_max`),
      [`bps${side}_max_length`]: number(`bps${side}_max_length`),
      [`iops${side}_max_length`]: number(`iops${side}_max_length`),
    }
    for (const [name, value] of Object.entries(limits)) {
      if (value === undefined) continue
      result[name] = value
      hasLimit = true
    }
  }
  if (!hasLimit) return undefined
  // The command wants these six always; 0 is no limit.
  for (const name of ['bps', 'bps_rd', 'bps_wr', 'iops', 'iops_rd', 'iops_wr']) result[name] ??= 0
  return result
}
