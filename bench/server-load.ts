/** What servers spend on a load: time per request and CPU of given processes, several loads in turn in one run. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { median } from './figures.ts'
import type { Load } from './keep-alive-load.ts'

export interface LoadCase {
  readonly name: string
  readonly load: Load
  /** Whose CPU counts. */
  readonly pids: readonly number[]
  readonly requests: number
}

/** Medians, in µs per request. */
export interface LoadFigures {
  readonly wall: number
  readonly cpu: number
  /** Of each process, in the order of `pids`. */
  readonly cpuOf: readonly number[]
}

/** Runs every load `rounds` times in turn. */
export async function compareLoads(cases: readonly LoadCase[], rounds: number): Promise<LoadFigures[]> {
  const samples = cases.map(() => [] as { wall: number; cpuOf: number[] }[])
  for (let round = -2; round < rounds; round += 1) {
    for (const [at, one] of cases.entries()) {
      const sample = await measured(one)
      // The first rounds warm the code up and do not count.
      if (round >= 0) samples[at]?.push(sample)
    }
  }
  return samples.map((all, at) => {
    const cpuOf = (cases[at]?.pids ?? []).map((_, which) => median(all.map((one) => one.cpuOf[which] ?? 0)))
    const cpu = median(all.map((one) => one.cpuOf.reduce((a, b) => a + b, 0)))
    return { wall: median(all.map(({ wall }) => wall)), cpu, cpuOf }
  })
}

async function measured({ load, pids, requests }: LoadCase): Promise<{ wall: number; cpuOf: number[] }> {
  const [before, began] = [pids.map(cpuMsOf), performance.now()]
  await load.run(requests)
  const perRequest = (ms: number) => (ms * 1000) / requests
  const wall = perRequest(performance.now() - began)
  return { wall, cpuOf: pids.map((pid, at) => perRequest(cpuMsOf(pid) - (before[at] ?? 0))) }
}

/** All threads of a process, to the nanosecond. */
export function cpuMsOf(pid: number): number {
  const tasks = readdirSync(`/proc/${pid}/task`)
  return (
    tasks.reduce(
      (sum, id) => sum + Number(readFileSync(`/proc/${pid}/task/${id}/schedstat`, 'utf8').split(' ')[0]),
      0,
    ) / 1e6
  )
}

export interface HelloServer {
  readonly port: number
  readonly pids: readonly number[]
  readonly end: () => void
}

/** The peer: a bare HTTPS server on Node that answers everything with `body`. */
export async function helloServer(facts: { key: string; certificate: string; body: string }): Promise<HelloServer> {
  const argv = ['--disable-warning=ExperimentalWarning', join(import.meta.dirname, 'hello-https.ts')]
  const child = spawn(process.execPath, argv, { stdio: ['pipe', 'pipe', 'inherit'] })
  child.stdin.write(`${JSON.stringify(facts)}\n`)
  const [port] = (await once(child.stdout, 'data')) as [Buffer]
  return { port: Number(port.toString()), pids: [child.pid ?? 0], end: () => child.stdin.end() }
}
