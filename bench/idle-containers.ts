/**
 * What a node with many running containers that do nothing costs: how late the daemon's event loop is while it looks
 * after them, memory and processor time of daemon and front, and how long a person waits for `hako ct list`.
 *
 * Each container is one process, so what is measured is the node and not them. As in `status-cycle.ts` a daemon without
 * guests is measured at the same time: what that one shows is the machine.
 *
 *   node bench/idle-containers.ts [containers] [seconds]
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { writeTemplate } from '../test/fixtures/containers/template.ts'
import { type BenchNode, benchNode } from './bench-node.ts'
import { row, table } from './figures.ts'
import { lagOf } from './loop-delays.ts'
import { ownFileSystem } from './own-file-system.ts'
import { memoryOf, compare, printProcesses } from './process.ts'
import { cpuMsOf } from './server-load.ts'
import { inTask } from './tasks.ts'

const [containers = 200, seconds = 60] = process.argv.slice(2).map(Number)
const startsAtOnce = 2
const preload = join(import.meta.dirname, 'loop-lag.ts')

await using undo = new AsyncDisposableStack()
const { path: place } = undo.use(ownFileSystem())
const empty = undo.use(await benchNode({ preload, place }))
const node = undo.use(await benchNode({ preload, place }))
await startContainers(node)

const lines: string[] = []
for (const [name, listEveryMs] of [
  [`${containers} running containers`, 0],
  [`${containers}, and a list with counters each second`, 1000],
] as const) {
  await Promise.all([lagOf(empty), lagOf(node)])
  const before = cpuOf(node)
  await wait(listEveryMs)
  const used = cpuOf(node).map((ms, at) => (ms - (before[at] ?? 0)) / seconds)
  const [there, here] = await Promise.all([lagOf(empty), lagOf(node)])
  const delays = ({ p50, p99, p999, max }: typeof here) => [p50, p99, p999, max].map((ms) => ms.toFixed(1))
  lines.push(
    row('no guests, at the same time', ...delays(there)),
    row(name, ...delays(here), ...used.map((ms) => (ms * 0.06).toFixed(2))),
  )
}
table(row('delay of the event loop, ms', 'median', '99 %', '99.9 %', 'longest', 'CPU s/min', 'front'), lines)
table(row('memory', 'RSS MiB', 'own MiB', 'peak MiB'), [
  row('daemon', ...memoryOf(node.daemonPid)),
  row('front', ...memoryOf(node.frontPid)),
  row('daemon without guests', ...memoryOf(empty.daemonPid)),
])
process.env.HAKO_RUN_DIR = node.settings.runDir
process.env.HAKO_NODE = node.settings.node
const hako = join(import.meta.dirname, '../hako')
printProcesses(
  compare({ 'node -e 0': [process.execPath, '-e', '0'], 'hako ct list': [hako, 'ct', 'list'] }, 9),
  'node -e 0',
)

function cpuOf({ daemonPid, frontPid }: BenchNode): number[] {
  return [cpuMsOf(daemonPid), cpuMsOf(frontPid)]
}

/** For as long as it is measured. */
async function wait(listEveryMs: number): Promise<void> {
  const until = performance.now() + seconds * 1000
  while (performance.now() < until) {
    if (listEveryMs > 0) await node.api('GET', '/cluster/resources')
    await sleep(1000)
  }
}

async function startContainers({ api, settings }: BenchNode): Promise<void> {
  const folder = join(settings.stateDir, 'storage/local/template/cache')
  mkdirSync(folder, { recursive: true })
  await writeTemplate(join(folder, 'busybox.tar'))
  const lxc = `/nodes/${settings.node}/lxc`
  const how = { ostemplate: 'local:vztmpl/busybox.tar', rootfs: 'local:0', memory: 32, ostype: 'unmanaged' }
  let next = 100
  const starter = async () => {
    while (next < 100 + containers) {
      const vmid = (next += 1) - 1
      await inTask(node, () => api('POST', lxc, { vmid, ...how, entrypoint: '/etc/quick', start: 1 }))
    }
  }
  await Promise.all(Array.from({ length: startsAtOnce }, starter))
}
