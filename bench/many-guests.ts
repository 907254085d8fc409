/**
 * A node with many configured guests beside LXD and libvirt with as many: their full state over a kept connection,
 * the list as a command, and the time from the start of the daemon to its first list.
 *
 *   node bench/many-guests.ts [guests] [rounds]
 */
import { Agent } from 'node:http'
import { join } from 'node:path'
import { waitFor } from '#base/clock.ts'
import { benchNode } from './bench-node.ts'
import { median, row, table } from './figures.ts'
import { httpGet, libvirtWith, lxdWith } from './peers.ts'
import { compare, printProcesses } from './process.ts'
import { cpuMsOf } from './server-load.ts'

const [guests = 1000, rounds = 9] = process.argv.slice(2).map(Number)

const domain = (name: string) =>
  `<domain type='qemu'><name>${name}</name><memory unit='MiB'>2048</memory><vcpu>2</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
  ${['sda', 'sdb'].map((disk) => `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/var/tmp/${name}-${disk}.qcow2'/><target dev='${disk}' bus='scsi'/></disk>`).join('')}
  </devices></domain>`

await using undo = new AsyncDisposableStack()
const lxd = undo.use(await lxdWith(guests))
const libvirt = undo.use(await libvirtWith(guests, domain))
const node = undo.use(await benchNode({ guests }))

// Over a kept connection of the same client for all that speak HTTP.
const agent = new Agent({ keepAlive: true, maxSockets: 1 })
undo.defer(() => agent.destroy())
const resources = '/api2/json/cluster/resources'
const listed = (await httpGet(join(node.settings.runDir, 'api.sock'), resources, agent)).toString()
if (!listed.includes(`qemu/${99 + guests}`)) throw new Error('another list')
const state = {
  hakobune: { pid: node.daemonPid, ask: () => httpGet(join(node.settings.runDir, 'api.sock'), resources, agent) },
  'LXD recursion=2': { pid: lxd.pid, ask: () => lxd.get('/1.0/instances?recursion=2') },
  'libvirt getAllDomainStats': { pid: libvirt.pid, ask: () => libvirt.step('stats') },
}
const samples = Object.fromEntries(Object.keys(state).map((name) => [name, [] as { wall: number; cpu: number }[]]))
for (let round = -1; round < rounds; round += 1) {
  for (const [name, { pid, ask }] of Object.entries(state)) {
    const [began, cpu] = [performance.now(), cpuMsOf(pid)]
    await ask()
    if (round >= 0) samples[name]?.push({ wall: performance.now() - began, cpu: cpuMsOf(pid) - cpu })
  }
}
const figure = (name: string, what: 'wall' | 'cpu') => median((samples[name] ?? []).map((one) => one[what]))
table(
  row(`full state of ${guests} guests`, 'wall ms', 'CPU ms', 'x wall', 'x CPU'),
  Object.keys(state).map((name) =>
    row(
      name,
      figure(name, 'wall').toFixed(2),
      figure(name, 'cpu').toFixed(2),
      (figure('hakobune', 'wall') / figure(name, 'wall')).toFixed(4),
      (figure('hakobune', 'cpu') / figure(name, 'cpu')).toFixed(4),
    ),
  ),
)

process.env.HAKO_RUN_DIR = node.settings.runDir
const list = compare(
  {
    'virsh list --all': ['virsh', '-c', libvirt.uri, 'list', '--all'],
    'hako vm list': [join(import.meta.dirname, '../hako'), 'vm', 'list'],
  },
  rounds,
)
printProcesses(list, 'virsh list --all')

const starts = { hakobune: [] as number[], LXD: [] as number[] }
for (let round = 0; round < Math.min(rounds, 5); round += 1) {
  starts.hakobune.push(
    await untilListed(
      () => node.restart(),
      () => node.get('/api2/json/cluster/resources'),
    ),
  )
  starts.LXD.push(
    await untilListed(
      () => lxd.restart(),
      () => lxd.get('/1.0/instances?recursion=1'),
    ),
  )
}
table(row(`cold start with ${guests} guests, to the first list`, 'ms', 'x LXD'), [
  row('LXD', median(starts.LXD).toFixed(0), '-'),
  row('hakobune', median(starts.hakobune).toFixed(0), (median(starts.hakobune) / median(starts.LXD)).toFixed(2)),
])

/** Restarting ends the old process first; that is the same for both and short. */
async function untilListed(restart: () => Promise<void>, ask: () => Promise<unknown>): Promise<number> {
  await restart()
  const began = performance.now()
  await waitFor(
    () =>
      ask().then(
        () => true,
        () => false,
      ),
    { what: 'the first list', timeoutMs: 120_000, everyMs: 5 },
  )
  return performance.now() - began
}
