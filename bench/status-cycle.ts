/**
 * How long the daemon's event loop keeps anybody waiting while many guests run: the cycle that looks after them
 * every second, and lists with their counters beside it.
 *
 * Seen from outside: `GET /version` over the local socket, again as soon as it is answered but not within a
 * millisecond, beside the same on a node without guests. What a loop held up is at least what such a call waited
 * longer. The guests are paused at once, because a processor that idles in firmware under software emulation is
 * busy; the daemon asks a paused one the same questions.
 *
 *   node bench/status-cycle.ts [guests] [seconds]
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { benchNode, type BenchNode } from './bench-node.ts'
import { median, row, table } from './figures.ts'
import { cpuMsOf } from './server-load.ts'
import { inTask } from './tasks.ts'

const [guests = 200, seconds = 30] = process.argv.slice(2).map(Number)
/** As a node with one processor core to spare takes them. */
const startsAtOnce = 2

await using undo = new AsyncDisposableStack()
const empty = undo.use(await benchNode())
const node = undo.use(await benchNode())
await startGuests(node)

const lines: string[] = []
for (const [name, one, listEveryMs] of [
  ['no guests', empty, 0],
  [`${guests} running guests`, node, 0],
  ['and a list with counters each second', node, 1000],
] as const) {
  const { waits, cpuMs, listMs } = await watched(one, listEveryMs)
  lines.push(
    row(
      name,
      String(waits.length),
      ...[0.5, 0.99, 0.999, 1].map((share) => quantile(waits, share).toFixed(1)),
      (cpuMs / seconds).toFixed(0),
      listMs.length === 0 ? '-' : median(listMs).toFixed(0),
    ),
  )
}
table(row('GET /version, ms', 'calls', 'median', '99 %', '99.9 %', 'longest', 'CPU ms/s', 'list ms'), lines)

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

async function watched({ api, daemonPid }: BenchNode, listEveryMs: number) {
  const [waits, listMs] = [[] as number[], [] as number[]]
  const [began, cpu] = [performance.now(), cpuMsOf(daemonPid)]
  const isOver = () => performance.now() - began > seconds * 1000
  const lists = async () => {
    while (listEveryMs > 0 && !isOver()) {
      const asked = performance.now()
      await api('GET', '/cluster/resources')
      listMs.push(performance.now() - asked)
      await sleep(listEveryMs)
    }
  }
  const calls = async () => {
    while (!isOver()) {
      const asked = performance.now()
      await api('GET', '/version')
      waits.push(performance.now() - asked)
      await sleep(1)
    }
  }
  await Promise.all([lists(), calls()])
  return { waits, listMs, cpuMs: cpuMsOf(daemonPid) - cpu }
}

function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}
