/**
 * How long the daemon's event loop keeps anybody waiting while many guests run: the cycle that looks after them
 * every second, and lists with their counters beside it.
 *
 * The delays are the loop's own (`perf_hooks` in the daemon, a timer each millisecond). A loop is also late when
 * others have the processor; so a daemon without guests is measured at the same time, and what it shows is the
 * machine. The guests are halted at once, because a processor that idles in firmware under software emulation is
 * busy; the daemon asks a halted one the same questions.
 *
 *   node bench/status-cycle.ts [guests] [seconds]
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { benchNode, type BenchNode } from './bench-node.ts'
import { median, row, table } from './figures.ts'
import { lagOf } from './loop-delays.ts'
import type { LoopLag } from './loop-lag.ts'
import { cpuMsOf } from './server-load.ts'
import { inTask } from './tasks.ts'

const [guests = 200, seconds = 30] = process.argv.slice(2).map(Number)
const startsAtOnce = 2
const preload = join(import.meta.dirname, 'loop-lag.ts')

await using undo = new AsyncDisposableStack()
const empty = undo.use(await benchNode({ preload }))
const node = undo.use(await benchNode({ preload }))
await startGuests(node)

const lines: string[] = []
for (const [name, listEveryMs] of [
  [`${guests} running guests`, 0],
  [`${guests}, and a list with counters each second`, 1000],
] as const) {
  await Promise.all([lagOf(empty), lagOf(node)])
  const cpu = [cpuMsOf(node.daemonPid), cpuMsOf(empty.daemonPid)]
  const listMs = await lists(node, listEveryMs)
  const used = [cpuMsOf(node.daemonPid) - (cpu[0] ?? 0), cpuMsOf(empty.daemonPid) - (cpu[1] ?? 0)]
  const [there, here] = await Promise.all([lagOf(empty), lagOf(node)])
  lines.push(
    line('no guests, at the same time', there, used[1] ?? 0, '-'),
    line(name, here, used[0] ?? 0, listMs.length === 0 ? '-' : median(listMs).toFixed(0)),
  )
}
table(row('delay of the event loop, ms', 'median', '99 %', '99.9 %', 'longest', 'CPU ms/s', 'list ms'), lines)

function line(name: string, { p50, p99, p999, max }: LoopLag, cpuMs: number, list: string): string {
  return row(name, ...[p50, p99, p999, max].map((ms) => ms.toFixed(1)), (cpuMs / seconds).toFixed(0), list)
}

async function lists({ api }: BenchNode, everyMs: number): Promise<number[]> {
  const took: number[] = []
  const until = performance.now() + seconds * 1000
  while (performance.now() < until) {
    const asked = performance.now()
    if (everyMs > 0) await api('GET', '/cluster/resources')
    took.push(performance.now() - asked)
    await sleep(everyMs > 0 ? everyMs : 1000)
  }
  return everyMs > 0 ? took : []
}

async function startGuests({ api, settings }: BenchNode): Promise<void> {
  const at = `/nodes/${settings.node}/qemu`
  let next = 100
  const starter = async () => {
    while (next < 100 + guests) {
      const vmid = (next += 1) - 1
      await inTask(node, () => api('POST', at, { vmid, memory: 16, kvm: 0, freeze: 1 }))
      await inTask(node, () => api('POST', `${at}/${vmid}/status/start`))
    }
  }
  await Promise.all(Array.from({ length: startsAtOnce }, starter))
}
