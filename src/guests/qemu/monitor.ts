/** The few questions and commands of QMP a guest's daily life takes. */
import { Fault, isFault } from '#base/fault.ts'
import { MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import type { QmpConnectOptions } from '#host/qemu/qmp.ts'
import { QmpClient } from '#host/qemu/qmp.ts'
import type { Options } from '../config.ts'
import { balloonPath, hasBalloon } from './balloon.ts'
import { throttleOf } from './drive-limits.ts'
import { drivesOf } from './drive.ts'
import { nicsOf } from './nic.ts'

/** QEMU queues one more client behind the one it serves; a third is turned away and has to ask again. */
const CONNECT_LIMIT_MS = 10_000

/** Connects to a monitor, waiting for its turn. */
export async function openMonitor(path: string, options: QmpConnectOptions): Promise<QmpClient> {
  const { timeoutMs = CONNECT_LIMIT_MS, signal } = options
  const attempt = async () => {
    try {
      return await QmpClient.connect(path, { ...options, timeoutMs })
    } catch (fault) {
      // EAGAIN: the queue in front of the socket is full.
      if (isFault(fault, 'unavailable') && fault.message.includes('EAGAIN')) return undefined
      throw fault
    }
  }
  return waitFor(attempt, { what: `turn at the monitor '${path}'`, timeoutMs, everyMs: 20, signal })
}

/** What only QMP can set before the processors run: cables, rate limits, the balloon's reports. */
export async function prepare(monitor: QmpClient, options: Options): Promise<void> {
  for (const { name, isLinkDown } of nicsOf(options)) {
    if (isLinkDown) await monitor.execute('set_link', { name, up: false })
  }
  for (const drive of drivesOf(options)) {
    const limits = throttleOf(drive)
    if (limits) await monitor.execute('block_set_io_throttle', limits)
  }
  if (hasBalloon(options)) {
    const property = 'guest-stats-polling-interval'
    await monitor.execute('qom-set', { path: balloonPath, property, value: 2 })
    // With shares of 0 nobody but the owner moves the balloon, so it is where they put it.
    if (options.shares === '0' && options.balloon !== undefined) {
      await monitor.execute('balloon', { value: Number(options.balloon) * MiB })
    }
  }
}

export interface MonitorSample {
  /** `running`, `paused`, `prelaunch`, `io-error`, … */
  readonly status: string
  readonly diskReadBytes: number
  readonly diskWriteBytes: number
  /** Memory the guest itself says it uses; undefined while its balloon driver does not speak. */
  readonly guestUsedBytes?: number
}

interface BlockStats {
  readonly stats: { readonly rd_bytes: number; readonly wr_bytes: number }
}

export async function sample(monitor: QmpClient, options: Options): Promise<MonitorSample> {
  const [{ status }, drives, used] = await Promise.all([
    monitor.execute<{ status: string }>('query-status'),
    monitor.execute<BlockStats[]>('query-blockstats'),
    hasBalloon(options) ? guestUsedBytes(monitor) : undefined,
  ])
  return {
    status,
    diskReadBytes: sum(drives.map((drive) => drive.stats.rd_bytes)),
    diskWriteBytes: sum(drives.map((drive) => drive.stats.wr_bytes)),
    ...(used === undefined ? {} : { guestUsedBytes: used }),
  }
}

interface BalloonStats {
  readonly 'last-update': number
  readonly stats: Readonly<Record<string, number>>
}

async function guestUsedBytes(monitor: QmpClient): Promise<number | undefined> {
  const args = { path: balloonPath, property: 'guest-stats' }
  const report = await monitor.execute<BalloonStats>('qom-get', args)
  const [total, free] = [report.stats['stat-total-memory'], report.stats['stat-free-memory']]
  // 2^64-1, or any other number larger than memory can be, stands for "the guest did not say".
  if (report['last-update'] === 0 || total === undefined || free === undefined || total > 2 ** 60 || free > total) {
    return undefined
  }
  return total - free
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}

/** Asks QEMU to end at once, as pulling the plug. A QEMU that is gone already has done it. */
export async function quit(monitor: QmpClient): Promise<void> {
  try {
    await monitor.execute('quit')
  } catch (fault) {
    if (!isFault(fault, 'unavailable')) throw fault
  }
}

/** The version a running QEMU reports: `7.2.22`. */
export async function versionOf(monitor: QmpClient): Promise<string> {
  const { qemu } = await monitor.execute<{ qemu: { major: number; minor: number; micro: number } }>('query-version')
  return `${qemu.major}.${qemu.minor}.${qemu.micro}`
}

/** The pinned machine type a running QEMU chose: `pc-q35-7.2`. */
export async function machineOf(monitor: QmpClient): Promise<string> {
  const type = await monitor.execute<unknown>('qom-get', { path: '/machine', property: 'type' })
  if (typeof type !== 'string') throw new Fault('failed', 'QEMU did not say what machine it emulates')
  return type.replace(/-machine$/, '')
}
