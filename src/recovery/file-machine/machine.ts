/**
 * A machine that reads the files on disks of a backup: file systems are for its kernel to understand, and what somebody hid in
 * them to break a kernel breaks this one. It has the disks, read-only, and nothing else: no network, no other file; its QEMU
 * runs under a uid of its own, in a sandbox and within a limit of memory.
 *
 * What a disk's file system would write (its journal, when the guest was not asleep) goes into an image of the machine's own
 * on top of the disk, which ends with it.
 */
import { chown, mkdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { GiB, MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { Cgroups } from '#host/cgroups/cgroup.ts'
import { type Companion, startCompanion } from '#host/programs/companion.ts'
import { type DiskServerProgram, endDiskServer, serveDisks } from '#host/nbd/disk-server.ts'
import { makeDirectory } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { accelerator } from '#host/qemu/kvm.ts'
import { statOf } from '#host/programs/proc.ts'
import { FilePort, type Question } from './port.ts'
import { ensureFileMachineImage } from './image.ts'

export interface MachineNeeds {
  readonly settings: {
    readonly instance: string
    readonly runDir: string
    readonly cacheDir: string
    readonly uidBase: number
  }
  readonly host: Host
  readonly diskServer: DiskServerProgram
}

export interface MachineDisk {
  readonly name: string
  readonly sizeBytes: number
}

export interface MachineWish {
  /** Volume id of the backup. */
  readonly from: string
  readonly disks: readonly MachineDisk[]
  /** From 0: each has a uid, a directory and a group of its own. */
  readonly slot: number
}

const memoryMiB = 320
const translatedMiB = 96
/** QEMU itself takes its share. */
const groupBytes = 1 * GiB
const ownWritesMaximumBytes = 256 * MiB
const ports = 8
/** With fewer that can still be asked it is worn out. */
const portsLeast = ports / 2
const startLimitMs = 60_000
/** For a port. The front waits a little longer for an answer. */
const roomLimitMs = 150_000
const silenceMs = 120_000
/** The front has the number below the guests', screens of terminals and the tool for registries the ones below that. */
const uidBelow = 4
const disksMaximum = 24

export class FileMachine implements AsyncDisposable {
  readonly #ports: readonly FilePort[]
  readonly #serials: ReadonlyMap<string, string>
  readonly #end: () => Promise<void>

  private constructor(ports: readonly FilePort[], serials: ReadonlyMap<string, string>, end: () => Promise<void>) {
    this.#ports = ports
    this.#serials = serials
    this.#end = end
  }

  /** @throws Fault `missing` without what it is made of, `failed` with QEMU's words */
  static async start(needs: MachineNeeds, wish: MachineWish): Promise<FileMachine> {
    const { settings, host, diskServer } = needs
    const { from, slot } = wish
    const disks = wish.disks.slice(0, disksMaximum)
    const image = await ensureFileMachineImage({ host, cacheDir: settings.cacheDir })
    const [uid, directory] = [settings.uidBase - uidBelow - slot, join(settings.runDir, 'files', String(slot))]
    const [served, own] = [join(directory, 'disks'), join(directory, 'machine')]
    const group = `hakobune-${settings.instance}/files-${slot}`
    await using undo = new AsyncDisposableStack()
    undo.defer(() => rm(directory, { recursive: true, force: true }))
    await rm(directory, { recursive: true, force: true })
    await makeDirectory(directory)
    await mkdir(own, { mode: 0o700 })
    const serials = new Map(disks.map(({ name }, number) => [name, `disk${number}`]))
    undo.defer(() => endDiskServer(served))
    const sockets = await serveDisks({
      program: diskServer,
      from,
      disks: disks.map(({ name }) => name),
      directory: served,
      uid,
      isBound: true,
    })
    for (const { name, sizeBytes } of disks) {
      const overlay = join(own, `${serials.get(name)}.qcow2`)
      await host.run(['qemu-img', 'create', '-q', '-f', 'qcow2', overlay, String(Math.max(512, sizeBytes))])
      await chown(overlay, uid, uid)
    }
    await chown(own, uid, uid)
    const cgroups = await Cgroups.detect()
    undo.defer(async () => {
      await cgroups.killAll(group)
      await cgroups.removeGroup(group)
    })
    await cgroups.createGroup(group, { memoryBytes: groupBytes, pids: 64 })
    const { accelerator: accel } = await accelerator({ host, cacheDir: settings.cacheDir })
    const argv = argvOf({
      ...image,
      own,
      accel,
      disks: disks.map(({ name }) => [serials.get(name) ?? '', sockets[name] ?? '']),
    })
    const said: string[] = []
    const qemu = await startCompanion(await confined(uid, accel, argv), {
      onLine: () => {},
      onErrorLine: (line) => void said.push(line.slice(0, 512)),
    })
    undo.defer(() => endOf(qemu))
    await cgroups.addProcess(group, qemu.pid)
    const connected: FilePort[] = []
    undo.defer(() => connected.forEach((port) => port.close()))
    for (let port = 0; port < ports; port += 1) {
      connected.push(await connectedTo(join(own, `port${port}.sock`), { qemu, uid, said }))
    }
    const scope = undo.move()
    return new FileMachine(connected, serials, () => scope.disposeAsync())
  }

  /** False once it cannot be asked any more. */
  get isUsable(): boolean {
    return this.#ports.some((port) => !port.isGone)
  }

  /** True once so many answers were not wanted to the end that the next who come had better have a new one. */
  get isWornOut(): boolean {
    return this.#ports.filter((port) => !port.isGone).length < portsLeast
  }

  /** What it names a disk. @throws Fault `missing` */
  serialOf(disk: string): string {
    const serial = this.#serials.get(disk)
    if (serial === undefined) throw new Fault('missing', `there is no disk '${disk}'`)
    return serial
  }

  /**
   * A port for this question, which is the caller's until the answer is over. Who is told what is in a folder may ask for that
   * meanwhile: so the last free port is for no list, or all would wait for each other.
   * @throws Fault `unavailable`; `timeout` when others do not come to an end
   */
  async portFor(question: Question): Promise<FilePort> {
    const reserved = () => {
      if (!this.isUsable) throw new Fault('unavailable', 'the machine that reads the disks of the backup has ended')
      const free = this.#ports.filter((port) => port.isFree)
      return free.length > (question === 'tree' || question === 'list' ? 1 : 0) && free[0]?.reserve()
    }
    return waitFor(reserved, {
      what: 'room in the machine that reads the disks of the backup',
      timeoutMs: roomLimitMs,
      everyMs: 20,
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end()
  }
}

interface Hardware {
  readonly kernel: string
  readonly initrd: string
  readonly own: string
  readonly accel: string
  /** Serial and socket. */
  readonly disks: readonly (readonly [string, string])[]
}

function argvOf({ kernel, initrd, own, accel, disks }: Hardware): string[] {
  const forbidden = 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'
  const argv = ['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none', '-sandbox', forbidden]
  argv.push('-machine', 'pc', '-cpu', accel === 'kvm' ? 'host' : 'max', '-m', String(memoryMiB))
  // What emulation keeps of translated code grows without this to as much as the whole group may have.
  argv.push('-accel', accel === 'kvm' ? 'kvm' : `tcg,tb-size=${translatedMiB}`)
  // What the kernel does not know it hands to init.
  const words = `quiet loglevel=0 panic=-1 mitigations=off ports=${ports}`
  argv.push('-kernel', kernel, '-initrd', initrd, '-append', words)
  for (const [serial, path] of disks) {
    const below = { driver: 'nbd', 'read-only': true, server: { type: 'unix', path } }
    const file = { driver: 'file', filename: join(own, `${serial}.qcow2`) }
    argv.push('-blockdev', JSON.stringify({ driver: 'qcow2', 'node-name': serial, file, backing: below }))
    argv.push('-device', `virtio-blk-pci,drive=${serial},serial=${serial}`)
  }
  argv.push('-device', 'virtio-serial-pci')
  for (let port = 0; port < ports; port += 1) {
    argv.push('-chardev', `socket,id=port${port},path=${own}/port${port}.sock,server=on,wait=off`)
    argv.push('-device', `virtserialport,chardev=port${port},name=port${port}`)
  }
  return argv
}

async function confined(uid: number, accel: string, argv: readonly string[]) {
  // Access to /dev/kvm is by its group, and only where it is used.
  const groups = accel === 'kvm' ? `--groups=${(await stat('/dev/kvm')).gid}` : '--clear-groups'
  return [
    'setpriv',
    '--pdeathsig=KILL',
    `--reuid=${uid}`,
    `--regid=${uid}`,
    groups,
    '--no-new-privs',
    '--inh-caps=-all',
    '--bounding-set=-all',
    'prlimit',
    `--fsize=${ownWritesMaximumBytes}`,
    '--core=0',
    'qemu-system-x86_64',
    ...argv,
  ] as const
}

async function endOf(qemu: Companion): Promise<void> {
  qemu.kill('SIGKILL')
  await qemu.ended
}

async function connectedTo(
  socket: string,
  { qemu, uid, said }: { readonly qemu: Companion; readonly uid: number; readonly said: readonly string[] },
): Promise<FilePort> {
  const attempt = async () => {
    try {
      return await FilePort.connect(socket, { pid: qemu.pid, uid }, silenceMs)
    } catch (fault) {
      if (!isFault(fault, 'unavailable')) throw fault
      if ((await statOf(qemu.pid))?.state !== 'Z' && (await statOf(qemu.pid)) !== undefined) return undefined
      throw new Fault('failed', `QEMU did not start: ${said.at(-1) ?? 'it said nothing'}`, { cause: fault })
    }
  }
  return waitFor(attempt, {
    what: 'the machine that reads the disks of the backup',
    timeoutMs: startLimitMs,
    everyMs: 10,
  })
}
