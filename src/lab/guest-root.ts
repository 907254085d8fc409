/**
 * Lays out the guest's file tree: busybox under its many names, the guest agent with the libraries it was
 * linked against on this machine, a dozen kernel modules, and the files below `guest/root`.
 */
import { copyFile, cp, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { zstdCompressSync } from 'node:zlib'
import { Fault } from '#base/fault.ts'
import type { Host } from '#host/host.ts'
import type { UnpackedPackages } from './guest-packages.ts'

export const guestFiles = join(import.meta.dirname, 'guest')

/** What the guest must load before it can see its root. */
const storageModules = ['virtio_pci', 'virtio_blk', 'virtio_scsi', 'sd_mod']
const otherModules = [
  'virtio_net',
  'virtio_console',
  'virtio_balloon',
  'virtio-rng',
  'sr_mod',
  'isofs',
  'button',
  'evdev',
  'virtiofs',
]
const directories = [
  'bin',
  'boot',
  'data',
  'dev',
  'etc',
  'new',
  'proc',
  'root',
  'run',
  'sys',
  'tmp',
  'usr',
  'var/lib/hakobune',
]

/** The small archive that finds the root disk and steps over to it. */
export async function layInitrd(host: Host, packages: UnpackedPackages, into: string): Promise<void> {
  await layGround(host, into)
  await layModules(host, packages, into, storageModules)
  await copyFile(join(guestFiles, 'initrd/init'), join(into, 'init'))
}

/** The whole guest. Its `init` also lets it run from memory. */
export async function layRoot(host: Host, packages: UnpackedPackages, into: string): Promise<void> {
  await layGround(host, into)
  await layModules(host, packages, into, [...storageModules, ...otherModules])
  await layAgent(host, packages.agent, into)
  await cp(join(guestFiles, 'root'), into, { recursive: true })
  await copyFile(join(guestFiles, 'initrd/init'), join(into, 'init'))
}

async function layGround(host: Host, into: string): Promise<void> {
  for (const name of directories) await mkdir(join(into, name), { recursive: true })
  for (const name of ['sbin', 'usr/bin', 'usr/sbin']) {
    await symlink(name === 'sbin' ? 'bin' : '../bin', join(into, name))
  }
  await symlink('/run/resolv.conf', join(into, 'etc/resolv.conf'))
  await copyFile('/bin/busybox', join(into, 'bin/busybox'))
  const { stdout } = await host.run(['/bin/busybox', '--list'])
  for (const applet of stdout.split('\n').filter((name) => name !== '' && name !== 'busybox')) {
    await symlink('busybox', join(into, 'bin', applet))
  }
}

async function layModules(
  host: Host,
  { modulesBase, kernelRelease }: UnpackedPackages,
  into: string,
  names: readonly string[],
): Promise<void> {
  const files = new Set<string>()
  for (const name of names) {
    const { stdout } = await host.run(['modprobe', '-d', modulesBase, '-S', kernelRelease, '--show-depends', name])
    for (const file of modulesIn(stdout)) files.add(file)
  }
  for (const file of files) {
    const target = join(into, file.slice(file.indexOf('/lib/modules/') + 1))
    await mkdir(dirname(target), { recursive: true })
    await copyFile(file, target)
    // Some kernels ship their modules packed; busybox cannot load those.
    if (target.endsWith('.xz')) await host.run(['/bin/busybox', 'unxz', target])
  }
  for (const list of ['modules.order', 'modules.builtin', 'modules.builtin.modinfo']) {
    const place = join('lib/modules', kernelRelease, list)
    await copyFile(join(modulesBase, place), join(into, place))
  }
  await host.run(['depmod', '-b', into, kernelRelease])
}

/** The files in a reply of `modprobe --show-depends`; lines that say `builtin` need none. */
export function modulesIn(reply: string): string[] {
  return reply.split('\n').flatMap((line) => /^insmod (\S+)/.exec(line)?.[1] ?? [])
}

async function layAgent(host: Host, agent: string, into: string): Promise<void> {
  await copyFile(agent, join(into, 'bin/qemu-ga'))
  const { stdout } = await host.run(['ldd', agent])
  for (const library of librariesIn(stdout)) {
    await mkdir(join(into, dirname(library)), { recursive: true })
    await copyFile(library, join(into, library))
  }
}

/** The absolute paths in a reply of `ldd`. @throws Fault `missing` naming a library that is not there. */
export function librariesIn(reply: string): string[] {
  const absent = /^\s*(\S+) => not found$/m.exec(reply)
  if (absent) {
    throw new Fault('missing', `the guest agent needs the library '${absent[1]}', which is not installed`, {
      remedy: 'Install the package qemu-system-x86 of the same distribution release.',
    })
  }
  return reply.split('\n').flatMap((line) => /(?:=> |^\s)(\/\S+) \(0x/.exec(line)?.[1] ?? [])
}

/** Packs a tree as an initramfs, everything owned by root. */
export async function packArchive(host: Host, tree: string, target: string): Promise<void> {
  const names = (await readdir(tree, { recursive: true })).toSorted()
  const plain = `${target}.cpio`
  await host.run(['cpio', '--create', '--quiet', '--format=newc', '--owner=0:0', `--file=${plain}`], {
    cwd: tree,
    input: `.\n${names.join('\n')}\n`,
  })
  await writeFile(target, zstdCompressSync(await readFile(plain)))
}
