/**
 * Writes down every minute how the node, its guests and its storages are.
 *
 * Counters become rates between two rounds, so the first round after a start has none. A subject that cannot be asked is left
 * out of its round; the others are not.
 */
import { seconds } from '#base/clock.ts'
import type { GuestSummary } from '#guests/guest.ts'
import { networkBytes, pressureOf } from '#host/network/network-counters.ts'
import type { Measurement } from '#observe/ring-file.ts'
import type { Services } from '#services.ts'
import { keepGoing } from './rounds.ts'

const everyMs = 60_000

export type HistoryDeps = Pick<Services, 'settings' | 'clock' | 'log' | 'node' | 'guests' | 'storage' | 'history'>

export function writeHistory(deps: HistoryDeps, signal: AbortSignal): void {
  const observer = new Observer(deps)
  const round = () => observer.round()
  const failed = 'writing down how the node is failed'
  const ended = 'nobody writes down how the node is any more'
  keepGoing(deps, { everyMs, isAtOnce: true, round, failed, ended }, signal)
}

export class Observer {
  readonly #deps: HistoryDeps
  /** Counters of the last round, with their time, by subject. */
  readonly #before = new Map<string, { readonly atMs: number; readonly counters: Readonly<Record<string, number>> }>()

  constructor(deps: HistoryDeps) {
    this.#deps = deps
  }

  async round(): Promise<void> {
    const { settings, clock, history, guests, storage, log } = this.#deps
    const now = seconds(clock)
    await history.record('node', settings.node, now, await this.#ofNode())
    const all = await guests.list()
    for (const guest of all) await history.record('guest', String(guest.vmid), now, this.#ofGuest(guest))
    await history.keepOnly('guest', new Set(all.map(({ vmid }) => String(vmid))))
    const storages = await storage.list()
    for (const { name } of storages) {
      try {
        const { active, totalBytes, usedBytes } = await storage.status(name)
        if (active) await history.record('storage', name, now, { total: totalBytes, used: usedBytes })
      } catch (error) {
        log.info('a storage could not be asked how full it is', { storage: name, error })
      }
    }
    await history.keepOnly('storage', new Set(storages.map(({ name }) => name)))
  }

  async #ofNode(): Promise<Measurement> {
    const { usage, load, memory, disk, processor } = await this.#deps.node.measures()
    const [moved, cpu, io, waiting] = await Promise.all([
      networkBytes(),
      pressureOf('cpu'),
      pressureOf('io'),
      pressureOf('memory'),
    ])
    return {
      cpu: usage.busy,
      iowait: usage.wait,
      loadavg: load[0],
      maxcpu: processor.threads,
      memtotal: memory.totalBytes,
      memused: memory.usedBytes,
      memavailable: memory.availableBytes,
      swaptotal: memory.swapTotalBytes,
      swapused: memory.swapTotalBytes - memory.swapFreeBytes,
      roottotal: disk.totalBytes,
      rootused: disk.usedBytes,
      ...this.#rates('node', { netin: moved.received, netout: moved.sent }),
      pressurecpusome: cpu.some,
      pressureiosome: io.some,
      pressureiofull: io.full,
      pressurememorysome: waiting.some,
      pressurememoryfull: waiting.full,
    }
  }

  #ofGuest({ vmid, state, processors, maxMemoryBytes, maxDiskBytes }: GuestSummary): Measurement {
    const bounds = { maxcpu: processors, maxmem: maxMemoryBytes, maxdisk: maxDiskBytes, disk: 0 }
    const subject = `guest/${vmid}`
    if (state.state !== 'running') {
      this.#before.delete(subject)
      return bounds
    }
    const { netInBytes, netOutBytes, diskReadBytes, diskWriteBytes } = state
    return {
      ...bounds,
      cpu: state.cpu,
      mem: state.memoryBytes,
      memhost: state.hostMemoryBytes,
      ...this.#rates(subject, {
        netin: netInBytes,
        netout: netOutBytes,
        diskread: diskReadBytes,
        diskwrite: diskWriteBytes,
      }),
    }
  }

  /** Bytes per second since the last round; a counter that went back began anew. */
  #rates(subject: string, counters: Readonly<Record<string, number>>): Measurement {
    const atMs = this.#deps.clock.monotonic()
    const before = this.#before.get(subject)
    this.#before.set(subject, { atMs, counters })
    if (!before || atMs <= before.atMs) return {}
    const passed = (atMs - before.atMs) / 1000
    return Object.fromEntries(
      Object.entries(counters).map(([name, value]) => {
        const grown = value - (before.counters[name] ?? value)
        return [name, grown < 0 ? undefined : grown / passed]
      }),
    )
  }
}
