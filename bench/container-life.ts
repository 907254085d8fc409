/**
 * The life of a container, from the call that makes it until it is gone, beside LXD on a pool of directories: create
 * from a template that is there, start, run a program and have what it printed, stop hard, delete.
 *
 * The same Debian tree for both, as an image in the form each reads fastest: zstd in a tar for us, in a squashfs for
 * LXD, whose unpacker takes all processors (an image of LXD's that is a tar is unpacked more slowly). Both containers
 * are unprivileged and have a card on the same bridge; both are asked over a connection that is kept, LXD's waiting
 * calls for its operations, ours for a task's status every 4 ms. Both live in one fresh file system. CPU is that
 * of the daemon and of all it started, what ran in the container included, until the next act begins: what is done after
 * the answer, or ahead for the next act, counts.
 *
 *   node bench/container-life.ts [rounds] [ms between one act and the next]
 */
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { machine } from '#host/exec.ts'
import { ensureContainerTemplate } from '#lab/container-template.ts'
import { freshInstance } from '../test/own-names.ts'
import { benchNode } from './bench-node.ts'
import { cpuGroup, cpuMsOfGroup } from './cpu-group.ts'
import { median, row, table } from './figures.ts'
import { ownFileSystem } from './own-file-system.ts'
import { lxdWith } from './peers.ts'
import { inTask } from './tasks.ts'

const [rounds = 9, pauseMs = 500] = process.argv.slice(2).map(Number)
/** Half of this is what we are late by; asking takes processor time from what is asked about. */
const askEveryMs = 4
const asked = 'busybox id -u'.split(' ')
const isUp = [
  '/bin/sh',
  '-c',
  'until [ -S /run/systemd/private ]; do sleep 0.01; done; systemctl is-system-running --wait',
]

await using undo = new AsyncDisposableStack()
const bridge = withBridge()
const place = undo.use(ownFileSystem()).path
const groups = { lxd: undo.use(await cpuGroup(`${bridge}-lxd`)), own: undo.use(await cpuGroup(`${bridge}-own`)) }
const lxd = undo.use(await lxdWith(0, place))
groups.lxd.add(lxd.pid)
const node = undo.use(await benchNode({ place }))
groups.own.add(node.daemonPid, node.frontPid)
const { api, settings } = node
const archive = await ensureContainerTemplate({ host: machine(), cacheDir: settings.cacheDir })
await giveImage()

const acts = ['create', 'start', 'exec', 'stop', 'delete'] as const
type Life = Readonly<Record<(typeof acts)[number], () => Promise<unknown>>>
const peers = { LXD: await theirLife(), hakobune: await ourLife() }

const all = [...acts, 'all'] as const
const figures = Object.fromEntries(
  Object.keys(peers).map((name) => [
    name,
    Object.fromEntries(all.map((act) => [act, { wall: [] as number[], cpu: [] as number[] }])),
  ]),
)
for (let round = -3; round < rounds; round += 1) {
  for (const [name, { life, cpuMs }] of Object.entries(peers)) {
    const sum = { wall: 0, cpu: 0 }
    for (const act of acts) {
      const [began, cpu] = [performance.now(), cpuMs()]
      await life[act]()
      const wall = performance.now() - began
      await sleep(pauseMs)
      const took = { wall, cpu: cpuMs() - cpu }
      sum.wall += took.wall
      sum.cpu += took.cpu
      // The first rounds compile and fill caches; our third is the first that copies a kept tree.
      if (round >= 0) note(name, act, took)
    }
    if (round >= 0) note(name, 'all', sum)
  }
}
for (const what of ['wall', 'cpu'] as const) {
  const of = (name: string, act: string) => median(figures[name]?.[act]?.[what] ?? [])
  table(
    row(what === 'wall' ? 'ms' : 'CPU ms', ...all),
    Object.keys(peers).map((name) => row(name, ...all.map((act) => of(name, act).toFixed(0)))),
  )
  table(row(`hakobune as a multiple of LXD, ${what}`, ...all), [
    row('', ...all.map((act) => (of('hakobune', act) / of('LXD', act)).toFixed(2))),
  ])
}

const up = { LXD: [] as number[], hakobune: [] as number[] }
for (let round = 0; round < Math.min(rounds, 5); round += 1) {
  for (const [name, { life, until }] of Object.entries(peers)) {
    await life.create()
    await sleep(pauseMs)
    const began = performance.now()
    await life.start()
    await until()
    up[name as keyof typeof up].push(performance.now() - began)
    await life.stop()
    await life.delete()
  }
}
table(
  row('from the call until systemd inside is up', 'ms'),
  Object.entries(up).map(([name, ms]) => row(name, median(ms).toFixed(0))),
)

function note(name: string, act: string, { wall, cpu }: { readonly wall: number; readonly cpu: number }): void {
  figures[name]?.[act]?.wall.push(wall)
  figures[name]?.[act]?.cpu.push(cpu)
}

/** For both, with nothing behind it. */
function withBridge(): string {
  const name = `hk${freshInstance('b')}`
  execFileSync('ip', ['link', 'add', 'name', name, 'type', 'bridge'])
  undo.defer(() => void execFileSync('ip', ['link', 'delete', 'dev', name]))
  execFileSync('ip', ['link', 'set', 'dev', name, 'up'])
  return name
}

/** The template for us, and the same tree for LXD. */
async function giveImage(): Promise<void> {
  const templates = join(settings.stateDir, 'storage/local/template/cache')
  mkdirSync(templates, { recursive: true })
  copyFileSync(archive, join(templates, basename(archive)))
  const folder = mkdtempSync(join(place, 'hako-image-'))
  try {
    const [tree, image, facts] = ['tree', 'rootfs.squashfs', 'facts.tar'].map((name) => join(folder, name))
    mkdirSync(String(tree))
    const keep = ['--numeric-owner', '--xattrs', '--xattrs-include=*']
    execFileSync('tar', ['--extract', '--zstd', ...keep, `--file=${archive}`, `--directory=${tree}`])
    execFileSync('mksquashfs', [String(tree), String(image), '-quiet', '-no-progress', '-comp', 'zstd'])
    writeFileSync(join(folder, 'metadata.yaml'), 'architecture: x86_64\ncreation_date: 1700000000\n')
    execFileSync('tar', ['--create', `--file=${facts}`, `--directory=${folder}`, 'metadata.yaml'])
    await lxd.lxc('image', 'import', String(facts), String(image), '--alias', 'bench')
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

async function theirLife() {
  const name = 'bench'
  const instance = `/1.0/instances/${name}`
  const below = (part: string) => `lxc.cgroup.dir.${part} = ${groups.lxd.name}/${part}`
  const config = { 'raw.lxc': ['monitor', 'monitor.pivot', 'container'].map(below).join('\n') }
  const nic = { type: 'nic', nictype: 'bridged', parent: bridge, name: 'eth0' }
  const source = { type: 'image', alias: 'bench' }
  const setState = (action: string) => lxd.operation('PUT', `${instance}/state`, { action, force: true, timeout: -1 })
  const exec = async (command: readonly string[]) => {
    const how = { 'wait-for-websocket': false, 'record-output': true, interactive: false }
    const { output } = (await lxd.operation('POST', `${instance}/exec`, { command, ...how })) as {
      output: Record<string, string>
    }
    return (await lxd.get(output['1'] ?? '')).toString()
  }
  const life: Life = {
    create: () => lxd.operation('POST', '/1.0/instances', { name, source, config, devices: { eth0: nic } }),
    start: () => setState('start'),
    exec: async () => requireRoot(await exec(asked)),
    stop: () => setState('stop'),
    delete: () => lxd.operation('DELETE', instance),
  }
  return { life, cpuMs: groups.lxd.cpuMs, until: async () => requireUp(await exec(isUp)) }
}

async function ourLife() {
  const [lxc, vmid] = [`/nodes/${settings.node}/lxc`, 100]
  const guests = await cpuMsOfGroup(`hakobune-${settings.instance}`)
  const ostemplate = `local:vztmpl/${basename(archive)}`
  const params = { vmid, ostemplate, rootfs: 'local:0', hostname: 'bench', net0: `name=eth0,bridge=${bridge}` }
  const exec = async (command: readonly string[]) => {
    const { data } = await api('POST', `/hako/containers/${settings.node}/${vmid}/exec`, { command })
    return (data as { 'out-data': string })['out-data']
  }
  const done = (call: () => ReturnType<typeof api>) => inTask(node, call, askEveryMs)
  const life: Life = {
    create: () => done(() => api('POST', lxc, params)),
    start: () => done(() => api('POST', `${lxc}/${vmid}/status/start`)),
    exec: async () => requireRoot(await exec(asked)),
    stop: () => done(() => api('POST', `${lxc}/${vmid}/status/stop`)),
    delete: () => done(() => api('DELETE', `${lxc}/${vmid}`)),
  }
  return { life, cpuMs: () => groups.own.cpuMs() + guests(), until: async () => requireUp(await exec(isUp)) }
}

function requireRoot(printed: string): void {
  if (printed !== '0\n') throw new Error(`the container printed '${printed}'`)
}

function requireUp(state: string): void {
  if (!/^(running|degraded)\n$/.test(state)) throw new Error(`systemd says '${state}'`)
}
