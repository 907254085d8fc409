/**
 * A backup of a virtual machine that runs, of which about 1 % has changed since the last one, by dirty bitmap, beside
 * virtnbdbackup on libvirt, which neither deduplicates nor encrypts nor compresses: the same qcow2 disk in a machine of
 * the same kind, and the same writes to both. Then what it costs where the same data lie on larger disks.
 *
 * CPU is that of everybody at work, until a second after the end: our daemon, its task, which the process of the one before
 * does, and QEMU; virtnbdbackup, libvirt and QEMU. Both run as they do at night: nobody asks how far they are.
 *
 *   node bench/incremental.ts [rounds] [folder to keep the disk in, and to take it from] [GiB ...]
 */
import { execFileSync, spawn } from 'node:child_process'
import { once as happens } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { GiB, MiB } from '#base/bytes.ts'
import { asVmid } from '#base/ids.ts'
import { benchNode } from './bench-node.ts'
import { cpuGroup, cpuMsOfGroup } from './cpu-group.ts'
import { diskFixture } from './disk-fixture.ts'
import { median, row, table } from './figures.ts'
import { libvirtWith, withPackages } from './peers.ts'
import { once } from './process.ts'
import { inTask, inUnwatchedTask } from './tasks.ts'

const rounds = Number(process.argv[2] ?? 3)
const keptIn = process.argv[3]
const sizes = process.argv.slice(4).map(Number)
const sizesGiB = sizes.length > 0 ? sizes : [8, 32, 128]

await using undo = new AsyncDisposableStack()
undo.use(await withPackages('virtnbdbackup'))
const scratch = mkdtempSync('/var/tmp/hako-incremental-')
// Both QEMU read from here what their guests are to write.
chmodSync(scratch, 0o755)
undo.defer(() => rmSync(scratch, { recursive: true, force: true }))
const home = keptIn ?? join(scratch, 'disk')
mkdirSync(home, { recursive: true })
const fixture = await diskFixture(home)

interface Figures {
  readonly cpuMs: number
  readonly wallMs: number
  readonly storedMiB: number
}
interface Machine extends AsyncDisposable {
  /** Lines for QEMU's own monitor. */
  readonly monitor: (lines: readonly string[]) => Promise<void>
  readonly device: string
  readonly backUp: (isFirst: boolean) => Promise<Figures>
}

for (const sizeGiB of sizesGiB) {
  await using round = new AsyncDisposableStack()
  const machines: Record<string, Machine> = { hakobune: round.use(await ours(sizeGiB)) }
  if (sizeGiB === sizesGiB[0]) machines.virtnbdbackup = round.use(await theirs(sizeGiB))
  const samples = new Map<string, Figures[]>(Object.keys(machines).map((name) => [name, []]))
  for (const machine of Object.values(machines)) await machine.backUp(true)
  for (let day = 0; day <= rounds; day += 1) {
    const writes = writesOf(day)
    for (const [name, machine] of Object.entries(machines)) {
      await machine.monitor(writes.map((write) => `qemu-io -d ${machine.device} "${write}"`))
      execFileSync('sync', ['--file-system', scratch])
      const figures = await machine.backUp(false)
      // The first fills caches.
      if (day > 0) samples.get(name)?.push(figures)
    }
  }
  const of = (name: string, what: (figures: Figures) => number) => median((samples.get(name) ?? []).map(what))
  const peer = of('virtnbdbackup', ({ cpuMs }) => cpuMs)
  table(
    row(`1 % changed, running VM, disk of ${sizeGiB} GiB`, 'CPU ms', 'wall ms', 'stored MiB', 'x CPU'),
    Object.keys(machines).map((name) =>
      row(
        name,
        of(name, ({ cpuMs }) => cpuMs).toFixed(0),
        of(name, ({ wallMs }) => wallMs).toFixed(0),
        of(name, ({ storedMiB }) => storedMiB).toFixed(1),
        Number.isNaN(peer) ? '-' : (of(name, ({ cpuMs }) => cpuMs) / peer).toFixed(2),
      ),
    ),
  )
}

/** A day's work as the fixture has it, made anew by the number of the day in each block. */
function writesOf(day: number): string[] {
  const folder = join(scratch, 'writes')
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder)
  const [block, entry] = [4_096, 8 + 2 * 4_096]
  const entries = readFileSync(join(home, 'changed.delta'))
  const runs: { offset: number; parts: Buffer[] }[] = []
  for (let at = 0; at < entries.length; at += entry) {
    const offset = Number(entries.readBigUInt64LE(at))
    const content = Buffer.from(entries.subarray(at + 8 + block, at + entry))
    content.writeUInt32LE(day, 0)
    const last = runs.at(-1)
    if (last && last.offset + last.parts.length * block === offset) last.parts.push(content)
    else runs.push({ offset, parts: [content] })
  }
  return runs.map(({ offset, parts }, number) => {
    const path = join(folder, String(number))
    writeFileSync(path, Buffer.concat(parts))
    return `write -s ${path} ${offset} ${parts.length * block}`
  })
}

function image(path: string, sizeGiB: number): string {
  execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', fixture.path, path])
  execFileSync('qemu-img', ['resize', '-q', '-f', 'qcow2', path, `${sizeGiB * GiB}`])
  return path
}

async function ours(sizeGiB: number): Promise<Machine> {
  await using stack = new AsyncDisposableStack()
  const node = stack.use(await benchNode({ place: scratch }))
  const { api, settings } = node
  const group = stack.use(await cpuGroup(`hako-incremental-${settings.instance}`))
  group.add(node.daemonPid, node.frontPid)
  const { data } = await api('POST', '/hako/recovery-key')
  await api('PUT', '/hako/recovery-key', { key: (data as { key: string }).key })
  const vault = join(scratch, `vault-${sizeGiB}`)
  mkdirSync(vault)
  stack.defer(() => rmSync(vault, { recursive: true, force: true }))
  await api('POST', '/storage', { storage: 'vault', type: 'dir', path: vault, content: 'backup' })
  const source = image(join(scratch, 'ours.qcow2'), sizeGiB)
  const vms = `/nodes/${settings.node}/qemu`
  const scsi0 = `local:0,import-from=${source},format=qcow2`
  await inTask(node, () => api('POST', vms, { vmid: 100, memory: 64, kvm: 0, scsihw: 'virtio-scsi-pci', scsi0 }))
  rmSync(source)
  await inTask(node, () => api('POST', `${vms}/100/status/start`))
  const guests = await cpuMsOfGroup(`hakobune-${settings.instance}`)
  const cpuMs = () => group.cpuMs() + guests()
  const held = stack.move()
  return {
    device: 'scsi0',
    async monitor(lines) {
      for (const command of lines) {
        const said = (await api('POST', `${vms}/${asVmid(100)}/monitor`, { command })).data
        if (/error|fail/i.test(String(said))) throw new Error(String(said))
      }
    },
    async backUp() {
      const before = { cpu: cpuMs(), began: performance.now(), stored: bytesOf(vault) }
      await inUnwatchedTask(node, () =>
        api('POST', `/nodes/${settings.node}/vzdump`, { vmid: '100', storage: 'vault' }),
      )
      const wallMs = performance.now() - before.began
      // What the task's process does after the task, and one that is started for the next, counts too.
      await sleep(1_000)
      return {
        cpuMs: cpuMs() - before.cpu,
        wallMs,
        storedMiB: (bytesOf(vault) - before.stored) / MiB,
      }
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  }
}

async function theirs(sizeGiB: number): Promise<Machine> {
  await using stack = new AsyncDisposableStack()
  const source = image(join(scratch, 'theirs.qcow2'), sizeGiB)
  stack.defer(() => rmSync(source, { force: true }))
  const libvirt = stack.use(
    await libvirtWith(
      1,
      (name) => `<domain type='qemu'><name>${name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
  <disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/><source file='${source}'/>
  <target dev='vda' bus='virtio'/></disk></devices></domain>`,
    ),
  )
  await libvirt.step('start', 'guest-100')
  const pidFile = `/proc/${libvirt.pid}/root/run/libvirt/qemu/guest-100.pid`
  const services = [libvirt.pid, Number(readFileSync(pidFile, 'utf8'))]
  const target = join(scratch, 'theirs')
  stack.defer(() => rmSync(target, { recursive: true, force: true }))
  const held = stack.move()
  return {
    device: '/machine/peripheral/virtio-disk0/virtio-backend',
    async monitor(lines) {
      const shell = spawn('virsh', ['-q', '-c', libvirt.uri], { stdio: ['pipe', 'ignore', 'inherit'] })
      for (const line of lines) shell.stdin.write(`qemu-monitor-command guest-100 --hmp '${line}'\n`)
      shell.stdin.end()
      await happens(shell, 'exit')
    },
    async backUp(isFirst) {
      const stored = isFirst ? 0 : bytesOf(target)
      const before = services.map(ticksMs).reduce((sum, ms) => sum + ms)
      // A URI that names its transport makes it ask for a password.
      const uri = libvirt.uri.replace('qemu+unix:', 'qemu:')
      const how = ['-U', uri, '-d', 'guest-100', '-l', isFirst ? 'full' : 'inc', '-o', target, '-S', scratch]
      const figures = once('virtnbdbackup', ['virtnbdbackup', ...how, '--noprogress', '-q'])
      await sleep(1_000)
      const after = services.map(ticksMs).reduce((sum, ms) => sum + ms)
      return { ...figures, cpuMs: figures.cpuMs + after - before, storedMiB: (bytesOf(target) - stored) / MiB }
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  }
}

/** User and system time of a process that lives, by the kernel's ticks of 10 ms. */
function ticksMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ')
  return (Number(fields[11]) + Number(fields[12])) * 10
}

function bytesOf(place: string): number {
  return Number(execFileSync('du', ['--summarize', '--bytes', place], { encoding: 'utf8' }).split('\t')[0])
}
