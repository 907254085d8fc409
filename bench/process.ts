/**
 * Times whole processes: wall and CPU, interleaved with a peer in one run, as medians and ratios. Machines
 * are noisy; a single absolute number says little.
 *
 * CPU is what the kernel charges to ended children, to the microsecond (getrusage by `node:ffi`). Rejected:
 * /proc/self/stat, whose ticks of 10 ms are half of what is measured here.
 */
import { spawnSync } from 'node:child_process'
import ffi from 'node:ffi'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { median, row, table } from './figures.ts'

export interface Figures {
  readonly wallMs: number
  readonly cpuMs: number
}

export type Command = readonly [string, ...string[]]

/** Runs every command `rounds` times in turn. @returns medians per name */
export function compare(commands: Readonly<Record<string, Command>>, rounds: number): Record<string, Figures> {
  const samples: Record<string, Figures[]> = {}
  for (let round = -2; round < rounds; round += 1) {
    for (const [name, command] of Object.entries(commands)) {
      const figures = once(name, command)
      // The first rounds warm the page cache and what is kept compiled; they do not count.
      if (round >= 0) (samples[name] ??= []).push(figures)
    }
  }
  return Object.fromEntries(
    Object.entries(samples).map(([name, all]) => [
      name,
      { wallMs: median(all.map(({ wallMs }) => wallMs)), cpuMs: median(all.map(({ cpuMs }) => cpuMs)) },
    ]),
  )
}

/** Runs a command once. */
export function once(name: string, [program, ...args]: Command): Figures {
  const cpuBefore = childrenCpuMs()
  const began = performance.now()
  const { status, stderr, error } = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 })
  const wallMs = performance.now() - began
  if (status !== 0) throw new Error(`${name} failed with ${status}: ${stderr}`, { cause: error })
  return { wallMs, cpuMs: childrenCpuMs() - cpuBefore }
}

export interface MeasuredFigures extends Figures {
  /** Of the largest of its processes. */
  readonly peakMiB: number
}

/** As `once`, by GNU's `time`. @param scratch a folder to write in */
export function measured(name: string, command: Command, scratch: string): MeasuredFigures {
  const peak = join(scratch, 'peak')
  const figures = once(name, ['/usr/bin/time', '--format', '%M', '--output', peak, ...command])
  return { ...figures, peakMiB: Number(readFileSync(peak, 'utf8').trim().split('\n').at(-1)) / 1024 }
}

const ofChildren = -1
const { getrusage } = ffi.dlopen('libc.so.6', {
  getrusage: { arguments: ['i32', 'pointer'], return: 'i32' },
}).functions

/** User and system time of all ended children so far: the first two `struct timeval` of `struct rusage`. */
function childrenCpuMs(): number {
  const usage = Buffer.alloc(144)
  if (getrusage(ofChildren, usage) !== 0) throw new Error('getrusage failed')
  const timeAt = (offset: number) =>
    Number(usage.readBigInt64LE(offset)) * 1e3 + Number(usage.readBigInt64LE(offset + 8)) / 1e3
  return timeAt(0) + timeAt(16)
}

/** One line per command, each against the one called `against`. */
export function printProcesses(figures: Readonly<Record<string, Figures>>, against: string): void {
  const peer = figures[against]
  const lines = Object.entries(figures).map(([name, { wallMs, cpuMs }]) =>
    row(name, wallMs.toFixed(1), cpuMs.toFixed(1), ratio(wallMs, peer?.wallMs), ratio(cpuMs, peer?.cpuMs)),
  )
  table(row('', 'wall ms', 'CPU ms', 'x wall', 'x CPU'), lines)
}

function ratio(value: number, peer: number | undefined): string {
  return peer === undefined ? '-' : (value / peer).toFixed(2)
}

/** Resident set, the part of it that is not pages of files, and the most it ever was, in MiB. */
export function memoryOf(pid: number): string[] {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return ['VmRSS', 'RssAnon', 'VmHWM'].map((name) => {
    const kib = Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1])
    return (kib / 1024).toFixed(1)
  })
}
