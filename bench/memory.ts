/**
 * Memory of daemon and front: after the first start of a node, at rest after a further one, and after every guest was listed a few times by each
 * of the ways there are. Resident set, and the part of it that is not pages of files (which processes share).
 *
 *   node bench/memory.ts [guests]
 */
import { systemClock, waitFor } from '#base/clock.ts'
import { benchNode } from './bench-node.ts'
import { row, table } from './figures.ts'
import { memoryOf } from './process.ts'

const [guests = 200] = process.argv.slice(2).map(Number)
/** A process at rest gives memory back after a while; this is when it is looked at. */
const restMs = 3_000

await using node = await benchNode({ guests })
const { api, settings } = node
// The first start of a node also makes its keys and compiles what others find compiled.
const lines = [...(await figures('at first'))]
await node.restart()
await waitFor(
  () =>
    api('GET', '/version').then(
      () => true,
      () => false,
    ),
  { what: 'the daemon', timeoutMs: 60_000 },
)
lines.push(...(await figures('at rest')))
for (let round = 0; round < 10; round += 1) {
  await api('GET', `/nodes/${settings.node}/qemu`)
  await api('GET', '/cluster/resources')
}
lines.push(...(await figures(`after listing ${guests} guests`)))
table(row('', 'RSS MiB', 'own MiB', 'peak MiB'), lines)

async function figures(when: string): Promise<string[]> {
  await systemClock.sleep(restMs)
  return [
    [`daemon ${when}`, node.daemonPid],
    [`front ${when}`, node.frontPid],
  ].map(([name, pid]) => row(String(name), ...memoryOf(Number(pid))))
}
