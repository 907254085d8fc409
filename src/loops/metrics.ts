/**
 * Tells metric servers every ten seconds how the node, its guests and its storages are.
 *
 * Nothing is kept for a server that does not answer: it misses that round, and the node goes on. Each server has its own
 * time limit, and one that is still being told is left out of the next round, so that none can hold up another. The log
 * hears when a server stops answering and when it does again, not of every round.
 */
import { seconds } from '#base/clock.ts'
import { messageOf } from '#base/fault.ts'
import { cardBytes } from '#host/network/network-counters.ts'
import { tellServer } from '#observe/metric-delivery.ts'
import type { MetricServer } from '#observe/metric-servers.ts'
import type { Sample } from '#observe/sample.ts'
import type { Services } from '#services.ts'
import { BackupFigures, type FiguresDeps } from './backup-figures.ts'
import { keepGoing } from './rounds.ts'

const everyMs = 10_000

export type MetricDeps = Pick<
  Services,
  'settings' | 'clock' | 'log' | 'node' | 'guests' | 'storage' | 'metricServers'
> &
  FiguresDeps

export function tellMetricServers(deps: MetricDeps, signal: AbortSignal): void {
  const teller = new Teller(deps, signal)
  const round = () => teller.round()
  const failed = 'looking how the node is for metric servers failed'
  keepGoing(deps, { everyMs, isAtOnce: true, round, failed, ended: 'nobody tells metric servers any more' }, signal)
}

export class Teller {
  readonly #deps: MetricDeps
  readonly #signal: AbortSignal
  readonly #busy = new Map<string, Promise<void>>()
  readonly #silent = new Set<string>()
  readonly #backups: BackupFigures

  constructor(deps: MetricDeps, signal: AbortSignal) {
    this.#deps = deps
    this.#signal = signal
    this.#backups = new BackupFigures(deps)
  }

  /** Starts to tell everybody; `settled` waits for the slowest. */
  async round(): Promise<void> {
    const servers = (await this.#deps.metricServers.withSecrets()).filter(({ options }) => options.disable !== true)
    for (const id of this.#silent) if (!servers.some((server) => server.id === id)) this.#silent.delete(id)
    if (servers.length === 0) return
    this.#backups.refresh()
    const [samples, now] = [await samplesOf(this.#deps, this.#backups), seconds(this.#deps.clock)]
    for (const server of servers) {
      if (this.#busy.has(server.id)) continue
      const telling = this.#tell(server, samples, now).finally(() => this.#busy.delete(server.id))
      this.#busy.set(server.id, telling)
    }
  }

  async settled(): Promise<void> {
    await Promise.all([...this.#busy.values(), this.#backups.settled()])
  }

  /** Never rejects. */
  async #tell(server: MetricServer, samples: readonly Sample[], now: number): Promise<void> {
    const { log } = this.#deps
    try {
      await tellServer(server, samples, now, this.#signal)
      if (this.#silent.delete(server.id)) log.info('a metric server takes what it is told again', { id: server.id })
    } catch (error) {
      if (this.#signal.aborted || this.#silent.has(server.id)) return
      this.#silent.add(server.id)
      log.warn('a metric server does not take what it is told', { id: server.id, reason: messageOf(error) })
    }
  }
}

async function samplesOf(deps: MetricDeps, backups: BackupFigures): Promise<Sample[]> {
  return [await nodeSample(deps), ...(await guestSamples(deps, backups)), ...(await storageSamples(deps, backups))]
}

async function nodeSample({ settings, node }: MetricDeps): Promise<Sample> {
  const [measures, nics] = await Promise.all([node.measures(), cardBytes()])
  const { usage, load, memory, disk, processor, uptimeSeconds } = measures
  const [avg1, avg5, avg15] = load
  return {
    kind: 'nodes',
    node: settings.node,
    id: settings.node,
    values: { uptime: uptimeSeconds },
    groups: {
      cpustat: { cpu: usage.busy, wait: usage.wait, cpus: processor.threads, avg1, avg5, avg15 },
      memory: {
        memtotal: memory.totalBytes,
        memused: memory.usedBytes,
        memfree: memory.freeBytes,
        memavailable: memory.availableBytes,
        swaptotal: memory.swapTotalBytes,
        swapfree: memory.swapFreeBytes,
        swapused: memory.swapTotalBytes - memory.swapFreeBytes,
      },
      blockstat: { total: disk.totalBytes, used: disk.usedBytes, free: disk.freeBytes, avail: disk.availableBytes },
      nics,
    },
  }
}

async function guestSamples({ settings, guests }: MetricDeps, backups: BackupFigures): Promise<Sample[]> {
  const all = await guests.list()
  return all.map(({ vmid, kind, name, processors, maxMemoryBytes, maxDiskBytes, state }) => {
    const running =
      state.state === 'running'
        ? {
            cpu: state.cpu,
            mem: state.memoryBytes,
            memhost: state.hostMemoryBytes,
            uptime: state.uptimeSeconds,
            netin: state.netInBytes,
            netout: state.netOutBytes,
            diskread: state.diskReadBytes,
            diskwrite: state.diskWriteBytes,
          }
        : { cpu: 0, mem: 0, uptime: 0 }
    const bounds = { cpus: processors, maxmem: maxMemoryBytes, maxdisk: maxDiskBytes, disk: 0 }
    const backup = backups.ofGuest(kind, vmid)
    const values = { ...running, ...bounds }
    return { kind, node: settings.node, id: String(vmid), label: name, values, ...(backup && { groups: { backup } }) }
  })
}

/** A storage that cannot be asked is told as not active. */
async function storageSamples({ settings, storage, log }: MetricDeps, backups: BackupFigures): Promise<Sample[]> {
  const all = await storage.list()
  return Promise.all(
    all.map(async ({ name, type }): Promise<Sample> => {
      const status = await storage.status(name).catch((error: unknown) => {
        log.debug('a storage could not be asked how full it is', { storage: name, error })
        return undefined
      })
      const values = status?.active
        ? { active: 1, total: status.totalBytes, used: status.usedBytes, avail: status.availableBytes }
        : { active: 0 }
      const datastore = backups.ofDatastore(name)
      return {
        kind: 'storages',
        node: settings.node,
        id: name,
        label: type,
        values,
        ...(datastore && { groups: { datastore } }),
      }
    }),
  )
}
