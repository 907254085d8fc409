/**
 * What a file machine boots: the distribution's kernel, and in memory a busybox with the modules and programs that read file
 * systems. Made once from the packages of this machine, and kept until one of them changes.
 */
import { createHash } from 'node:crypto'
import { access, chmod, copyFile, mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import { holdLock } from '#host/build-lock.ts'
import { codeOf, makeDirectory } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { layBusybox, layModules, layProgram, packArchive, unpackKernel } from '#host/small-linux.ts'

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
  const home = join(cacheDir, 'file-machine')
  const place = join(home, await keyOf(host))
  const image = { kernel: join(place, 'vmlinuz'), initrd: join(place, 'initrd') }
  if (await isThere(image.kernel)) return image
  await makeDirectory(home)
  await using _lock = await holdLock(join(home, 'lock'), { signal })
  if (!(await isThere(image.kernel))) await build(host, home, place, signal)
  return image
}

async function keyOf(host: Host): Promise<string> {
  const { stdout, code } = await host.run(['dpkg-query', '--show', ...packages], { okCodes: [0, 1] })
  if (code !== 0) {
    throw new Fault('missing', `files of disks are read with programs of the packages ${packages.join(', ')}`, {
      remedy: 'Run `hako doctor` to see which system packages are missing.',
    })
  }
  const making = await readFile(import.meta.filename)
  return createHash('sha256')
    .update(stdout)
    .update(await readFile(init))
    .update(making)
    .digest('hex')
    .slice(0, 16)
}

/** It is there when it is whole: by one rename. */
async function build(host: Host, home: string, target: string, signal: AbortSignal | undefined): Promise<void> {
  const place = await mkdtemp(join(home, '.build-'))
  try {
    const [unpacked, root, result] = [join(place, 'packages'), join(place, 'root'), join(place, 'result')]
    for (const directory of [unpacked, result, ...directories.map((name) => join(root, name))]) {
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
    await chmod(result, 0o755)
    await rename(result, target)
  } finally {
    await rm(place, { recursive: true, force: true })
  }
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    (cause: unknown) => {
      if (codeOf(cause) !== 'ENOENT') throw cause
      return false
    },
  )
}
