/**
 * A machine of its own for a test that needs what not every kernel has (VLANs, bonds) or that must not happen to this one:
 * an emulated computer with the distribution's kernel, whose root is this machine's, read-only, with an overlay in memory.
 */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { waitFor } from '#base/clock.ts'
import { machine } from '#host/exec.ts'
import { unpackPackages } from '#lab/guest-packages.ts'
import { modulesIn, packArchive } from '#host/qemu/small-linux.ts'

const host = machine()
const cache = '/var/cache/hakobune/machine'
const init = join(import.meta.dirname, 'fixtures/machine/init')
/** Of Debian 12 and of later releases. */
const sharers = ['/usr/lib/qemu/virtiofsd', '/usr/libexec/virtiofsd']

export interface MachineRun {
  /** Exit code of the script. */
  readonly code: number
  readonly output: string
}

/** Runs a shell script as root of a machine with two network cards, `eth0` and `eth1`, that lead nowhere. */
export async function runOnItsOwnMachine(script: string, timeoutMs = 240_000): Promise<MachineRun> {
  await using undo = new AsyncDisposableStack()
  const kernel = await preparedKernel()
  const place = await mkdtemp('/var/tmp/hako-machine-')
  undo.defer(() => rm(place, { recursive: true, force: true }))
  const file = (name: string) => join(place, name)
  await writeFile(file('script'), script)
  await layInitrd(kernel, file('initrd'))
  const ended = async (child: ReturnType<typeof spawn>) => {
    child.kill('SIGKILL')
    await waitFor(() => child.exitCode !== null || child.signalCode !== null, { what: 'end', timeoutMs: 60_000 })
  }
  const sharer = spawn(...sharerOf(file('root.sock')), { stdio: ['ignore', 'ignore', 'pipe'] })
  undo.defer(() => ended(sharer))
  let complaint = ''
  sharer.stderr?.on('data', (part: Buffer) => (complaint += part.toString('utf8')))
  await waitFor(() => existsSync(file('root.sock')), { what: 'the shared root', timeoutMs: 60_000 })
  const words = `console=ttyS0 quiet panic=-1 hk.script=${file('script')} hk.modules=${kernel.modules}`
  const qemu = spawn('qemu-system-x86_64', [...hardware(file), '-append', words], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  undo.defer(() => ended(qemu))
  qemu.stderr.on('data', (part: Buffer) => (complaint += part.toString('utf8')))
  const said = () => readFile(file('serial.log'), 'utf8').catch(() => '')
  await waitFor(() => qemu.exitCode !== null, { what: 'end of the machine', timeoutMs, everyMs: 100 }).catch(
    async (error: unknown) => {
      throw new Error(`${complaint}\n${await said()}`, { cause: error })
    },
  )
  const output = (await said()).replaceAll('\r', '')
  const code = /^ENDED WITH (\d+)$/m.exec(output)?.[1]
  if (code === undefined) throw new Error(`the machine never came to its end: ${complaint}\n${output}`)
  return { code: Number(code), output }
}

function sharerOf(socket: string): [string, string[]] {
  const program = sharers.find(existsSync)
  if (program === undefined) throw new Error(`none of ${sharers.join(', ')} is installed`)
  const isOld = program === sharers[0]
  const options = isOld
    ? ['-o', 'source=/', '-o', 'sandbox=chroot', '-o', 'cache=always']
    : ['--shared-dir=/', '--sandbox=chroot', '--cache=always']
  return [program, [`--socket-path=${socket}`, ...options]]
}

function hardware(file: (name: string) => string): string[] {
  const card = (number: number) => [
    `-netdev user,id=n${number},restrict=on`,
    `-device virtio-net-pci,netdev=n${number},romfile=,mac=52:54:00:00:00:0${number}`,
  ]
  return [
    '-accel tcg,thread=multi -M q35 -cpu Nehalem -m 768 -nodefaults -display none -no-reboot',
    '-object memory-backend-memfd,id=memory,size=768M,share=on -machine memory-backend=memory',
    `-chardev socket,id=root,path=${file('root.sock')}`,
    '-device vhost-user-fs-pci,chardev=root,tag=root,queue-size=1024',
    `-serial file:${file('serial.log')}`,
    ...card(0),
    ...card(1),
    `-kernel ${file('vmlinuz')} -initrd ${file('initrd')}`,
  ].flatMap((words) => words.split(' '))
}

interface Kernel {
  readonly release: string
  readonly vmlinuz: string
  /** What is `/lib/modules` of the machine. */
  readonly modules: string
  readonly base: string
}

/** The kernel with all its modules, fetched once. */
async function preparedKernel(): Promise<Kernel> {
  const home = join(cache, 'kernel')
  if (!existsSync(join(home, 'facts.json'))) {
    await mkdir(cache, { recursive: true })
    const place = await mkdtemp(join(cache, '.fetch-'))
    try {
      const { kernelRelease } = await unpackPackages(host, place)
      await writeFile(join(place, 'facts.json'), JSON.stringify({ release: kernelRelease }))
      await rename(place, home)
    } catch (error) {
      await rm(place, { recursive: true, force: true })
      // Somebody else fetched it meanwhile.
      if (!existsSync(join(home, 'facts.json'))) throw error
    }
  }
  const { release } = JSON.parse(await readFile(join(home, 'facts.json'), 'utf8')) as { release: string }
  const base = join(home, 'unpacked')
  return { release, base, vmlinuz: join(base, 'boot', `vmlinuz-${release}`), modules: join(base, 'lib/modules') }
}

/** Busybox and the modules that find the root; the rest comes from there. */
async function layInitrd({ release, base, vmlinuz }: Kernel, target: string): Promise<void> {
  const tree = `${target}.tree`
  for (const name of ['bin', 'dev', 'proc', 'sys', 'tmp']) await mkdir(join(tree, name), { recursive: true })
  await copyFile('/bin/busybox', join(tree, 'bin/busybox'))
  for (const applet of ['sh', 'mount', 'mkdir', 'modprobe', 'cat', 'sed', 'ip', 'chroot', 'echo', 'poweroff']) {
    await symlink('busybox', join(tree, 'bin', applet))
  }
  for (const name of ['virtio_pci', 'virtiofs', 'overlay', 'virtio_net']) {
    const { stdout } = await host.run(['modprobe', '-d', base, '-S', release, '--show-depends', name])
    for (const module of modulesIn(stdout)) {
      const copy = join(tree, module.slice(module.indexOf('/lib/modules/') + 1))
      await mkdir(dirname(copy), { recursive: true })
      await copyFile(module, copy)
      if (copy.endsWith('.xz')) await host.run(['/bin/busybox', 'unxz', copy])
    }
  }
  for (const list of ['modules.order', 'modules.builtin', 'modules.builtin.modinfo']) {
    const path = join('lib/modules', release, list)
    await copyFile(join(base, path), join(tree, path))
  }
  await host.run(['depmod', '-b', tree, release])
  await copyFile(init, join(tree, 'init'))
  await packArchive(host, tree, target)
  await copyFile(vmlinuz, join(dirname(target), 'vmlinuz'))
}
