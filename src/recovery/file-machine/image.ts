/**
 * What a file machine boots: the distribution's kernel, and in memory a busybox with the modules and programs that read file
 * systems. Made once from the packages of this machine, and kept until one of them changes.
 */
import { chmod, copyFile, mkdir, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import type { Host } from '#host/host.ts'
import { keptBuild, keyOf } from '#host/files/kept-build.ts'
import { layBusybox, layModules, layProgram, packArchive, unpackKernel } from '#host/qemu/small-linux.ts'

export interface FileMachineImage {
  readonly kernel: string
  readonly initrd: string
}

const init = join(import.meta.dirname, 'init')
const devices = ['virtio_pci', 'virtio_blk', 'virtio_console', 'dm-mod', 'dm-thin-pool', 'dm-raid', 'dm-snapshot']
const fileSystems = ['xfs', 'btrfs', 'vfat', 'exfat', 'isofs', 'fuse']
const helpers = ['nls_cp437', 'nls_ascii', 'nls_utf8', 'crc32c_generic']
/** Where they are on this machine, by their names inside. */
const programs: Readonly<Record<string, string>> = {
  'gnu-find': '/usr/bin/find',
  'real-blkid': '/usr/sbin/blkid',
  lvm: '/usr/sbin/lvm',
  'ntfs-3g': '/usr/bin/ntfs-3g',
}
const packages = ['busybox-static', 'findutils', 'util-linux', 'lvm2', 'ntfs-3g', 'libc6']
const directories = ['dev', 'proc', 'sys', 'run', 'tmp', 'mnt', 'etc/lvm']

/** @throws Fault `missing` naming a package, `failed` when one cannot be fetched */
export async function ensureFileMachineImage(
  { host, cacheDir }: { readonly host: Host; readonly cacheDir: string },
  signal?: AbortSignal,
): Promise<FileMachineImage> {
  const key = await keyOf([await versionsOf(host)], [import.meta.filename, init])
  const make = (place: string, result: string) => makeImage(host, { place, result }, signal)
  const home = join(cacheDir, 'file-machine')
  const directory = await keptBuild(host, { home, key, file: 'vmlinuz', make, signal })
  return { kernel: join(directory, 'vmlinuz'), initrd: join(directory, 'initrd') }
}

async function versionsOf(host: Host): Promise<string> {
  const { stdout, code } = await host.run(['dpkg-query', '--show', ...packages], { okCodes: [0, 1] })
  if (code === 0) return stdout
  throw new Fault('missing', `files of disks are read with programs of the packages ${packages.join(', ')}`, {
    remedy: 'Run `hako doctor` to see which system packages are missing.',
  })
}

async function makeImage(
  host: Host,
  { place, result }: { readonly place: string; readonly result: string },
  signal: AbortSignal | undefined,
): Promise<void> {
  const [unpacked, root] = [join(place, 'packages'), join(place, 'root')]
  for (const directory of [unpacked, ...directories.map((name) => join(root, name))]) {
    await mkdir(directory, { recursive: true })
  }
  const kernel = await unpackKernel(host, unpacked, { signal })
  await layBusybox(host, root)
  await layModules(host, kernel, root, [...devices, ...fileSystems, ...helpers])
  for (const [name, program] of Object.entries(programs)) await layProgram(host, program, root, name)
  await copyFile(init, join(root, 'init'))
  await chmod(join(root, 'init'), 0o755)
  await packArchive(host, root, join(place, 'initrd'))
  // Not compressed: unpacking takes a machine without hardware virtualization longer than reading more of it.
  await rename(join(place, 'initrd.cpio'), join(result, 'initrd'))
  await copyFile(kernel.vmlinuz, join(result, 'vmlinuz'))
  for (const name of ['initrd', 'vmlinuz']) await chmod(join(result, name), 0o644)
}
