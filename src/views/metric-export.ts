/**
 * How the node, its guests and its storages are, for somebody who comes and asks instead of being told.
 *
 * What was is read from the history, which keeps shares and amounts by the minute. It keeps no counters, only rates made
 * of them, so of what is counted there is the present alone.
 */
import type { Clock } from '#base/clock.ts'
import { seconds } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { NodeFacts } from '#cluster/node-facts.ts'
import type { GuestService } from '#guests/service.ts'
import { networkBytes } from '#host/network/network-counters.ts'
import type { History, Kind } from '#observe/history.ts'
import type { StorageService } from '#storage/service.ts'

export interface Metric {
  readonly id: string
  readonly metric: string
  readonly timestamp: number
  readonly type: 'gauge' | 'derive'
  readonly value: number
}

export interface ExportDeps {
  readonly settings: { readonly node: string }
  readonly clock: Clock
  readonly node: Pick<NodeFacts, 'measures'>
  readonly guests: Pick<GuestService, 'list'>
  readonly storage: Pick<StorageService, 'list' | 'status'>
  readonly history: Pick<History, 'rows'>
}

/** How far back, and the most that is told in one answer. */
const pastSeconds = 30 * 60
const mostMetrics = 200_000

interface Subject {
  readonly id: string
  readonly kind: Kind
  /** Its name in the history. */
  readonly name: string
  readonly gauges: Values
  readonly counters: Values
}

type Values = Readonly<Record<string, number | undefined>>

/** What the history calls each metric. */
const recorded: Readonly<Record<Kind, Readonly<Record<string, string>>>> = {
  node: {
    cpu: 'cpu_current',
    iowait: 'cpu_iowait',
    loadavg: 'cpu_avg1',
    maxcpu: 'cpu_max',
    memtotal: 'mem_total',
    memused: 'mem_used',
    swaptotal: 'swap_total',
    swapused: 'swap_used',
    roottotal: 'disk_total',
    rootused: 'disk_used',
  },
  guest: {
    cpu: 'cpu_current',
    maxcpu: 'cpu_max',
    mem: 'mem_used',
    maxmem: 'mem_total',
    disk: 'disk_used',
    maxdisk: 'disk_total',
  },
  storage: { total: 'disk_total', used: 'disk_used' },
}

/** @throws Fault `too-large` when it is more than one answer should hold */
export async function exportedMetrics(
  deps: ExportDeps,
  { history, after }: { history: boolean; after: number },
): Promise<Metric[]> {
  const now = seconds(deps.clock)
  const subjects = [await ofNode(deps), ...(await ofGuests(deps)), ...(await ofStorages(deps))]
  const found: Metric[] = []
  for (const subject of subjects) {
    if (history) found.push(...(await pastOf(deps, subject, { now, after })))
    if (now > after) found.push(...presentOf(subject, now))
    if (found.length > mostMetrics) {
      throw new Fault('too-large', `there are more than ${mostMetrics} values to tell`, {
        remedy: 'Ask for less with start-time, or without history.',
      })
    }
  }
  return found
}

function presentOf({ id, gauges, counters }: Subject, timestamp: number): Metric[] {
  return [...metricsOf(id, 'gauge', timestamp, gauges), ...metricsOf(id, 'derive', timestamp, counters)]
}

async function pastOf(
  { history }: ExportDeps,
  { id, kind, name }: Subject,
  { now, after }: { now: number; after: number },
): Promise<Metric[]> {
  const since = Math.max(after, now - pastSeconds)
  const rows = await history.rows(kind, name, { timeframe: 'hour', how: 'AVERAGE', nowSeconds: now })
  return rows
    .filter(({ time }) => time > since && time < now)
    .flatMap(({ time, ...row }) => {
      const named = Object.entries(recorded[kind]).map(([column, metric]) => [metric, row[column]] as const)
      return metricsOf(id, 'gauge', time, Object.fromEntries(named))
    })
}

function metricsOf(id: string, type: Metric['type'], timestamp: number, values: Values): Metric[] {
  return Object.entries(values).flatMap(([metric, value]) =>
    value === undefined || !Number.isFinite(value) ? [] : [{ id, metric, timestamp, type, value }],
  )
}

async function ofNode({ settings, node }: ExportDeps): Promise<Subject> {
  const [measures, moved] = await Promise.all([node.measures(), networkBytes()])
  const { usage, load, memory, disk, processor, uptimeSeconds } = measures
  const [avg1, avg5, avg15] = load
  const gauges = {
    uptime: uptimeSeconds,
    cpu_current: usage.busy,
    cpu_iowait: usage.wait,
    cpu_max: processor.threads,
    cpu_avg1: avg1,
    cpu_avg5: avg5,
    cpu_avg15: avg15,
    mem_total: memory.totalBytes,
    mem_used: memory.usedBytes,
    swap_total: memory.swapTotalBytes,
    swap_used: memory.swapTotalBytes - memory.swapFreeBytes,
    disk_total: disk.totalBytes,
    disk_used: disk.usedBytes,
  }
  const counters = { net_in: moved.received, net_out: moved.sent }
  return { id: `node/${settings.node}`, kind: 'node', name: settings.node, gauges, counters }
}

async function ofGuests({ guests }: ExportDeps): Promise<Subject[]> {
  const all = await guests.list()
  return all.map(({ vmid, kind, processors, maxMemoryBytes, maxDiskBytes, state }) => {
    const bounds = { cpu_max: processors, mem_total: maxMemoryBytes, disk_total: maxDiskBytes }
    const place = { id: `${kind}/${vmid}`, kind: 'guest', name: String(vmid) } as const
    if (state.state !== 'running') return { ...place, gauges: { ...bounds, uptime: 0 }, counters: {} }
    return {
      ...place,
      gauges: { ...bounds, uptime: state.uptimeSeconds, cpu_current: state.cpu, mem_used: state.memoryBytes },
      counters: {
        net_in: state.netInBytes,
        net_out: state.netOutBytes,
        disk_read: state.diskReadBytes,
        disk_write: state.diskWriteBytes,
      },
    }
  })
}

async function ofStorages({ settings, storage }: ExportDeps): Promise<Subject[]> {
  const all = await storage.list()
  return Promise.all(
    all.map(async ({ name }): Promise<Subject> => {
      const { active, totalBytes, usedBytes } = await storage.status(name)
      const gauges = active ? { disk_total: totalBytes, disk_used: usedBytes } : {}
      return { id: `storage/${settings.node}/${name}`, kind: 'storage', name, gauges, counters: {} }
    }),
  )
}
