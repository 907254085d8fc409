/**
 * Times whole processes: wall and CPU seconds, interleaved with a peer in one run, as medians and ratios.
 * Machines are noisy; a single absolute number says little.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

export interface Figures {
  readonly wallMs: number
  readonly cpuMs: number
}

export type Command = readonly [string, ...string[]]

/** Runs every command `rounds` times in turn. @returns medians per name */
export function compare(commands: Readonly<Record<string, Command>>, rounds: number): Record<string, Figures> {
  const samples: Record<string, Figures[]> = {}
  for (let round = -1; round < rounds; round += 1) {
    for (const [name, command] of Object.entries(commands)) {
      const figures = once(name, command)
      // The first round warms the page cache and does not count.
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

function once(name: string, [program, ...args]: Command): Figures {
  const cpuOfChildren = childrenCpuMs()
  const began = performance.now()
  const { status, stderr } = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 })
  const wallMs = performance.now() - began
  if (status !== 0) throw new Error(`${name} failed with ${status}: ${stderr}`)
  return { wallMs, cpuMs: childrenCpuMs() - cpuOfChildren }
}

/** CPU time of all ended children so far: fields 16 and 17 of /proc/self/stat, in ticks of 10 ms. */
function childrenCpuMs(): number {
  const fields = readFileSync('/proc/self/stat', 'latin1').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[13]) + Number(fields[14])) * 10
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}

export function printTable(figures: Readonly<Record<string, Figures>>, against: string): void {
  const peer = figures[against]
  for (const [name, { wallMs, cpuMs }] of Object.entries(figures)) {
    const ratio = peer
      ? `  ${(wallMs / peer.wallMs).toFixed(2)} x wall, ${(cpuMs / peer.cpuMs).toFixed(2)} x CPU of ${against}`
      : ''
    process.stdout.write(
      `${name.padEnd(28)} ${wallMs.toFixed(0).padStart(6)} ms wall ${cpuMs.toFixed(0).padStart(6)} ms CPU${ratio}\n`,
    )
  }
}
