/**
 * What this machine is and how busy it is, read from the kernel when asked.
 *
 * Shares of processor time need two readings. Instead of a timer the last reading is kept: an answer tells
 * what happened since then, or since boot when nobody has asked before.
 */
import { statfsSync } from 'node:fs'
import { access } from 'node:fs/promises'
import { cpus, machine, release, type as sysname, version } from 'node:os'
import type { Clock } from '#base/clock.ts'
import { readIfPresent } from '#host/files.ts'
import { type CpuCounters, cpuCounters, loadAverage, ofKernel, uptimeSeconds } from '#host/programs/proc.ts'

/** Two readings closer together say more about the reading than about the node. */
const SHORTEST_INTERVAL_MS = 500
/** What the kernel counts shared pages in on every architecture Node runs on under Debian. */
const PAGE_BYTES = 4096
const SECURE_BOOT = '/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c'

export interface Usage {
  /** Shares of all processors, 0 to 1. */
  readonly busy: number
  readonly wait: number
}

export interface MemoryUse {
  readonly totalBytes: number
  /** Taken by programs; caches can be taken back and do not count. */
  readonly usedBytes: number
  readonly freeBytes: number
  readonly availableBytes: number
  readonly swapTotalBytes: number
  readonly swapFreeBytes: number
}

export interface ProcessorFacts {
  readonly model: string
  readonly mhz: number
  readonly sockets: number
  readonly cores: number
  /** Hardware threads. */
  readonly threads: number
  readonly flags: string
  /** Can run guests in hardware. */
  readonly hasVirtualization: boolean
}

export interface DiskUse {
  readonly totalBytes: number
  readonly usedBytes: number
  readonly freeBytes: number
  readonly availableBytes: number
}

export interface NodeMeasures {
  readonly usage: Usage
  /** Processes that ran or waited, over 1, 5 and 15 minutes. */
  readonly load: readonly [number, number, number]
  readonly memory: MemoryUse
  /** The root file system. */
  readonly disk: DiskUse
  readonly processor: ProcessorFacts
  readonly uptimeSeconds: number
}

export interface KernelFacts {
  readonly sysname: string
  readonly release: string
  readonly version: string
  readonly machine: string
}

export interface BootFacts {
  readonly mode: 'efi' | 'legacy-bios'
  readonly secureBoot: boolean
}

export class NodeFacts {
  readonly #clock: Clock
  #last: { readonly at: number; readonly counters: CpuCounters; readonly usage: Usage } | undefined

  constructor(needs: { readonly clock: Clock }) {
    this.#clock = needs.clock
  }

  /** How busy the processors were since the last question. */
  async usage(): Promise<Usage> {
    const now = this.#clock.monotonic()
    if (this.#last && now - this.#last.at < SHORTEST_INTERVAL_MS) return this.#last.usage
    const counters = await cpuCounters()
    const usage = usageBetween(this.#last?.counters, counters)
    this.#last = { at: now, counters, usage }
    return usage
  }

  load(): Promise<[number, number, number]> {
    return loadAverage()
  }

  /** Whole seconds since boot. */
  async uptime(): Promise<number> {
    return Math.floor(await uptimeSeconds())
  }

  async memory(): Promise<MemoryUse> {
    return parseMemoryUse(ofKernel('/proc/meminfo'))
  }

  async processor(): Promise<ProcessorFacts> {
    return parseProcessor(ofKernel('/proc/cpuinfo'), cpus()[0]?.model)
  }

  /** The root file system. */
  async rootDisk(): Promise<DiskUse> {
    // Were it to hang, nothing here would run any more; so not by the thread pool either.
    const { blocks, bfree, bavail, bsize } = statfsSync('/')
    const [totalBytes, freeBytes] = [blocks * bsize, bfree * bsize]
    return { totalBytes, usedBytes: totalBytes - freeBytes, freeBytes, availableBytes: bavail * bsize }
  }

  /** How busy and how full it is, all at once. */
  async measures(): Promise<NodeMeasures> {
    const [usage, load, memory, disk, processor, uptimeSeconds] = await Promise.all([
      this.usage(),
      this.load(),
      this.memory(),
      this.rootDisk(),
      this.processor(),
      this.uptime(),
    ])
    return { usage, load, memory, disk, processor, uptimeSeconds }
  }

  kernel(): KernelFacts {
    return { sysname: sysname(), release: release(), version: version(), machine: machine() }
  }

  /** Bytes saved by merging equal pages of guests. */
  async mergedBytes(): Promise<number> {
    return Number((await readIfPresent('/sys/kernel/mm/ksm/pages_sharing')) ?? 0) * PAGE_BYTES
  }

  async boot(): Promise<BootFacts> {
    const isEfi = await access('/sys/firmware/efi').then(
      () => true,
      () => false,
    )
    // Four bytes of attributes, then the value.
    const variable = isEfi ? await readIfPresent(SECURE_BOOT) : undefined
    return { mode: isEfi ? 'efi' : 'legacy-bios', secureBoot: variable?.codePointAt(4) === 1 }
  }
}

/** @param before nothing: since boot */
export function usageBetween(before: CpuCounters | undefined, now: CpuCounters): Usage {
  const total = now.totalSeconds - (before?.totalSeconds ?? 0)
  const share = (seconds: number) => (total <= 0 ? 0 : Math.min(1, Math.max(0, seconds / total)))
  return {
    busy: share(now.busySeconds - (before?.busySeconds ?? 0)),
    wait: share(now.waitSeconds - (before?.waitSeconds ?? 0)),
  }
}

/** Reads `/proc/meminfo`. */
export function parseMemoryUse(text: string): MemoryUse {
  const bytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0) * 1024
  const [totalBytes, availableBytes] = [bytes('MemTotal'), bytes('MemAvailable')]
  return {
    totalBytes,
    usedBytes: totalBytes - availableBytes,
    freeBytes: bytes('MemFree'),
    availableBytes,
    swapTotalBytes: bytes('SwapTotal'),
    swapFreeBytes: bytes('SwapFree'),
  }
}

/** Reads `/proc/cpuinfo`. Machines that do not tell sockets and cores (ARM) count as one socket of whole cores. */
export function parseProcessor(text: string, knownModel = 'unknown'): ProcessorFacts {
  const threads = text.split(/\n\n+/).filter((block) => /^processor\s*:/m.test(block))
  const field = (block: string, name: string) => new RegExp(`^${name}\\s*:\\s*(.*)$`, 'm').exec(block)?.[1]?.trim()
  const first = threads[0] ?? ''
  const sockets = new Set(threads.map((block) => field(block, 'physical id') ?? '0'))
  const cores = new Set(
    threads.map((block, at) => `${field(block, 'physical id') ?? 0}/${field(block, 'core id') ?? at}`),
  )
  const flags = field(first, 'flags') ?? field(first, 'Features') ?? ''
  return {
    model: field(first, 'model name') ?? knownModel,
    mhz: Number(field(first, 'cpu MHz') ?? 0),
    sockets: sockets.size,
    cores: cores.size,
    threads: threads.length,
    flags,
    hasVirtualization: /\b(vmx|svm)\b/.test(flags),
  }
}
