/**
 * What a column's number means, for tables alone; JSON keeps the numbers. Proxmox VE's names mean the same
 * in every reply, so one list serves all commands.
 */
import { humanSize } from '#base/bytes.ts'

type Unit = 'bytes' | 'share' | 'seconds' | 'time' | 'expiry'

const units: Readonly<Record<string, Unit>> = {
  mem: 'bytes', maxmem: 'bytes', memhost: 'bytes', disk: 'bytes', maxdisk: 'bytes', size: 'bytes', used: 'bytes', avail: 'bytes', total: 'bytes',
  netin: 'bytes', netout: 'bytes', diskread: 'bytes', diskwrite: 'bytes', cpu: 'share', used_fraction: 'share', uptime: 'seconds',
  starttime: 'time', mtime: 'time',
  finished: 'time',
  verified: 'time',
  stored: 'bytes', data: 'bytes', was: 'bytes', differs: 'bytes', 'new-data': 'bytes', freed: 'bytes', freeable: 'bytes', endtime: 'time', ctime: 'time', time: 'time', created: 'time', snaptime: 'time', timestamp: 'time',
  'next-run': 'time', 'last-run': 'time', 'last-run-endtime': 'time', 'tfa-locked-until': 'time', expire: 'expiry',
} // prettier-ignore

export function unitOf(column: string): Unit | undefined {
  return units[column]
}

/** The value as a person reads it; anything this knows nothing of comes back as it was. */
export function humanValue(column: string, value: unknown): unknown {
  const unit = units[column]
  if (unit === undefined || typeof value !== 'number') return value
  switch (unit) {
    case 'bytes':
      return humanSize(value)
    case 'share':
      return `${(value * 100).toFixed(1)} %`
    case 'seconds':
      return duration(value)
    case 'time':
      return localTime(value)
    case 'expiry':
      return value === 0 ? 'never' : localTime(value)
    default:
      return unit satisfies never
  }
}

function duration(seconds: number): string {
  const [days, hours, minutes] = [
    Math.floor(seconds / 86_400),
    Math.floor(seconds / 3600) % 24,
    Math.floor(seconds / 60) % 60,
  ]
  if (days > 0) return `${days}d ${hours}h`
  if (hours > 0) return `${hours}h ${minutes}m`
  return minutes > 0 ? `${minutes}m ${Math.floor(seconds % 60)}s` : `${Math.floor(seconds)}s`
}

/** `2026-01-31 12:00:00` in the time zone of whoever looks. */
function localTime(seconds: number): string {
  const at = new Date(seconds * 1000)
  const two = (value: number) => String(value).padStart(2, '0')
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`
}
