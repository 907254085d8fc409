/**
 * Start of a virtual machine, from the call until it runs, and pulling its plug, beside libvirt with the same
 * machine: 64 MiB, q35, software emulation, no disk and no card, each over a connection that is kept.
 *
 * Ours counts from the POST until `status/current` says running (stopped); libvirt's from the call of
 * `create` (`destroy`) until it returns. Each of ours is a task of the process that did the one before.
 *
 *   node bench/start-stop.ts [rounds] [ms between one act and the next]
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { benchNode } from './bench-node.ts'
import { median, row, table } from './figures.ts'
import { libvirtWith } from './peers.ts'
import { inTask } from './tasks.ts'

const [rounds = 15, pauseMs = 1000] = process.argv.slice(2).map(Number)

const domain = (name: string) =>
  `<domain type='qemu'><name>${name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
  </devices></domain>`

await using undo = new AsyncDisposableStack()
const libvirt = undo.use(await libvirtWith(1, domain))
const node = undo.use(await benchNode())
const { api, settings } = node
const guest = `/nodes/${settings.node}/qemu/100`
await inTask(node, () => api('POST', `/nodes/${settings.node}/qemu`, { vmid: 100, memory: 64, machine: 'q35', kvm: 0 }))

type Samples = Record<'answered' | 'there' | 'ended', number[]>
const ours = { start: emptySamples(), stop: emptySamples() }
const theirs = { start: [] as number[], stop: [] as number[] }
for (let round = -2; round < rounds; round += 1) {
  for (const [what, state] of [
    ['start', 'running'],
    ['stop', 'stopped'],
  ] as const) {
    const sample = await act(what, state)
    if (round >= 0) for (const name of ['answered', 'there', 'ended'] as const) ours[what][name].push(sample[name])
  }
  const [start, stop] = [await libvirt.step('start', 'guest-100'), await libvirt.step('destroy', 'guest-100')]
  if (round < 0) continue
  theirs.start.push(start)
  theirs.stop.push(stop)
}

for (const what of ['start', 'stop'] as const) {
  const peer = median(theirs[what])
  const line = (name: string, values: readonly number[]) =>
    row(name, median(values).toFixed(1), (median(values) / peer).toFixed(2))
  table(row(what, 'ms', 'x libvirt'), [
    line('libvirt', theirs[what]),
    line(what === 'start' ? 'hakobune, until it runs' : 'hakobune, until it is stopped', ours[what].there),
    line('  of this until the call is answered', ours[what].answered),
    line('  until its task has ended', ours[what].ended),
  ])
}

function emptySamples(): Samples {
  return { answered: [], there: [], ended: [] }
}

async function act(what: 'start' | 'stop', state: string): Promise<Record<keyof Samples, number>> {
  await sleep(pauseMs)
  const began = performance.now()
  const since = () => performance.now() - began
  const sample = { answered: 0, there: 0, ended: 0 }
  const untilThere = async () => {
    while (((await api('GET', `${guest}/status/current`)).data as { status: string }).status !== state) await sleep(1)
    sample.there = since()
  }
  const call = async () => {
    const answer = await api('POST', `${guest}/status/${what}`)
    sample.answered = since()
    await untilThere()
    return answer
  }
  await inTask(node, call)
  return { ...sample, ended: since() }
}
