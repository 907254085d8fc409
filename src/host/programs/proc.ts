/**
 * Processes and counters as `/proc` tells them.
 *
 * A pid alone names nothing: the kernel gives it to another process once the first is gone. Whoever
 * remembers a process remembers pid *and* start time, and asks `isAlive` with both. A zombie counts as
 * dead: it runs no code and holds no file, it only waits for its parent to read its exit code.
 */
import { readFileSync } from 'node:fs'
import { readdir, readFile, readlink, stat } from 'node:fs/promises'
import { systemClock, waitFor } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { codeOf } from '../files.ts'

/** USER_HZ: 100 on every architecture Node runs on. */
const TICKS_PER_SECOND = 100
/** Debian's kernels use this page on every architecture it builds Node for. */
const PAGE_BYTES = 4096

export interface ProcessStat {
  readonly pid: number
  readonly command: string
  /** `R`, `S`, `D`, `Z`, `T`, … */
  readonly state: string
  readonly parent: number
  /** Clock ticks after boot; with the pid, a name no other process ever bears until the next boot. */
  readonly startTime: number
  readonly cpuSeconds: number
  readonly residentBytes: number
}

/** Reads one line of `/proc/<pid>/stat`. The command may hold blanks and brackets: the last `)` ends it. */
export function parseStat(text: string): ProcessStat {
  const [open, close] = [text.indexOf('('), text.lastIndexOf(')')]
  const rest = text.slice(close + 2).split(' ')
  const field = (number: number) => Number(rest[number - 3])
  return {
    pid: Number(text.slice(0, open - 1)),
    command: text.slice(open + 1, close),
    state: rest[0] ?? '?',
    parent: field(4),
    startTime: field(22),
    cpuSeconds: (field(14) + field(15)) / TICKS_PER_SECOND,
    residentBytes: field(24) * PAGE_BYTES,
  }
}

/** What the kernel knows of a process, or nothing when there is none. */
export async function statOf(pid: number): Promise<ProcessStat | undefined> {
  // Nothing a process does can hold it up, unlike its command line: see `ofKernel`.
  const text = await unlessGone(() => readFileSync(`/proc/${pid}/stat`, 'utf8'))
  return text === undefined ? undefined : parseStat(text)
}

function readOfProcess(pid: number, file: string): Promise<string | undefined> {
  return unlessGone(() => readFile(`/proc/${pid}/${file}`, 'utf8'))
}

/** A process that ends while it is read answers ESRCH. */
async function unlessGone(read: () => string | Promise<string>): Promise<string | undefined> {
  try {
    return await read()
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT' || codeOf(cause) === 'ESRCH') return undefined
    throw cause
  }
}

export async function startTimeOf(pid: number): Promise<number | undefined> {
  return (await statOf(pid))?.startTime
}

/** Whether the very process that started at `startTime` still runs. */
export async function isAlive(pid: number, startTime: number): Promise<boolean> {
  const stat = await statOf(pid)
  return stat !== undefined && stat.startTime === startTime && !'ZX'.includes(stat.state)
}

/** Its argument vector; empty for a kernel thread or a process that is gone. */
export async function commandLineOf(pid: number): Promise<string[]> {
  const text = (await readOfProcess(pid, 'cmdline')) ?? ''
  return text.split('\0').slice(0, -1)
}

/** Whether the file its program was read from has been replaced since, as by an update. False when it is gone. */
export async function isProgramReplaced(pid: number): Promise<boolean> {
  try {
    return (await readlink(`/proc/${pid}/exe`)).endsWith(' (deleted)')
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT' || codeOf(cause) === 'ESRCH') return false
    throw cause
  }
}

/** Every pid of the machine now. */
export async function allPids(): Promise<number[]> {
  return (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)
}

/** How many processes a user has. */
export async function countProcessesOf(uid: number): Promise<number> {
  const owners = await Promise.all(
    (await allPids()).map((pid) => stat(`/proc/${pid}`).then((found) => found.uid, noOwner)),
  )
  return owners.filter((owner) => owner === uid).length
}

/** It ended while we looked. */
const noOwner = () => undefined

/** Pids, lowest first, whose argument vector satisfies `matches`. */
export async function findProcesses(matches: (argv: readonly string[]) => boolean): Promise<number[]> {
  const pids = (await allPids()).toSorted((a, b) => a - b)
  const argvs = await Promise.all(pids.map(commandLineOf))
  return pids.filter((_, at) => matches(argvs[at] ?? []))
}

/** Sends a signal to exactly this process. False when it is gone already. */
export async function signalProcess(pid: number, startTime: number, signal: NodeJS.Signals): Promise<boolean> {
  if (!(await isAlive(pid, startTime))) return false
  try {
    return process.kill(pid, signal)
  } catch (cause) {
    if (codeOf(cause) === 'ESRCH') return false
    throw new Fault('denied', `process ${pid} cannot be signalled (${codeOf(cause)})`, { cause })
  }
}

/**
 * Ends a process: SIGTERM, then SIGKILL after `graceMs` (0: at once), and returns when it is gone.
 * A start time of `undefined` means there was no such process when the caller looked.
 */
export async function endProcess(
  pid: number,
  startTime: number | undefined,
  options: { readonly graceMs: number },
): Promise<void> {
  if (startTime === undefined) return
  const isGone = async () => !(await isAlive(pid, startTime))
  if (options.graceMs > 0) {
    await signalProcess(pid, startTime, 'SIGTERM')
    const deadline = systemClock.monotonic() + options.graceMs
    const isOver = await waitFor(async () => (await isGone()) || (systemClock.monotonic() >= deadline && 'late'), {
      what: `end of process ${pid}`,
      timeoutMs: options.graceMs + 1_000,
      everyMs: 5,
    })
    if (isOver === true) return
  }
  await signalProcess(pid, startTime, 'SIGKILL')
  // Uninterruptible disk access can hold a killed process for a while, never this long on a sound machine.
  await waitFor(isGone, { what: `end of killed process ${pid}`, timeoutMs: 30_000, everyMs: 5 })
}

/** A value that changes with every boot of the machine. */
export async function bootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
}

export interface MemoryCounters {
  readonly totalBytes: number
  /** What programs may still take without swapping; caches count as available. */
  readonly availableBytes: number
  readonly swapTotalBytes: number
  readonly swapFreeBytes: number
}

export function parseMemory(text: string): MemoryCounters {
  const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0) * 1024
  return {
    totalBytes: kib('MemTotal'),
    availableBytes: kib('MemAvailable'),
    swapTotalBytes: kib('SwapTotal'),
    swapFreeBytes: kib('SwapFree'),
  }
}

export async function memoryCounters(): Promise<MemoryCounters> {
  return parseMemory(ofKernel('/proc/meminfo'))
}

export interface CpuCounters {
  /** Seconds since boot, summed over all processors. Two readings make a share. */
  readonly busySeconds: number
  readonly waitSeconds: number
  readonly totalSeconds: number
}

/**
 * A small file the kernel writes as it is read. Not by the thread pool: it takes 30 microseconds here and ten times that
 * there, and lists ask for several.
 */
export function ofKernel(
  path: '/proc/meminfo' | '/proc/stat' | '/proc/loadavg' | '/proc/uptime' | '/proc/cpuinfo',
): string {
  return readFileSync(path, 'utf8')
}

/** The first line of `/proc/stat`: user nice system idle iowait irq softirq steal (guest is inside user). */
export function parseCpu(text: string): CpuCounters {
  const ticks = (/^cpu\s+(.*)$/m.exec(text)?.[1] ?? '').split(' ').slice(0, 8).map(Number)
  const total = ticks.reduce((sum, value) => sum + value, 0)
  const [idle = 0, wait = 0] = [ticks[3], ticks[4]]
  return {
    busySeconds: (total - idle - wait) / TICKS_PER_SECOND,
    waitSeconds: wait / TICKS_PER_SECOND,
    totalSeconds: total / TICKS_PER_SECOND,
  }
}

export async function cpuCounters(): Promise<CpuCounters> {
  return parseCpu(ofKernel('/proc/stat'))
}

/** Averages over 1, 5 and 15 minutes. */
export async function loadAverage(): Promise<[number, number, number]> {
  const [one, five, fifteen] = ofKernel('/proc/loadavg').split(' ').map(Number)
  return [one ?? 0, five ?? 0, fifteen ?? 0]
}

export async function uptimeSeconds(): Promise<number> {
  return Number(ofKernel('/proc/uptime').split(' ')[0])
}
