/**
 * Lays out the guest's file tree: busybox under its many names, the guest agent with the libraries it was
 * linked against on this machine, a dozen kernel modules, and the files below `guest/root`.
 */
import { copyFile, cp, mkdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Host } from '#host/host.ts'
import { layBusybox, layModules, layProgram } from '#host/qemu/small-linux.ts'
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
  await layProgram(host, packages.agent, into, 'qemu-ga')
  await cp(join(guestFiles, 'root'), into, { recursive: true })
  await copyFile(join(guestFiles, 'initrd/init'), join(into, 'init'))
}

async function layGround(host: Host, into: string): Promise<void> {
  for (const name of directories) await mkdir(join(into, name), { recursive: true })
  await layBusybox(host, into)
  await symlink('/run/resolv.conf', join(into, 'etc/resolv.conf'))
}
