/**
 * Makes the guest's disk: ext4 on the whole of it, no partition table, a boot loader in the first sector.
 *
 * The tree is written by mkfs itself. Kernel and initrd are not: mkfs turns their zero blocks into holes, and
 * the boot loader takes a hole for an I/O error. It needs the file system mounted anyway, because it notes
 * the block addresses of its own second stage.
 */
import { copyFile, open } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '#base/bytes.ts'
import type { Host } from '#host/host.ts'
import { mountImage } from '#host/disks/mount.ts'

const diskBytes = 64 * MiB
/** Known to `guest/root/boot/extlinux.conf`. */
const guestLabel = 'hakobune-guest'

export interface DiskParts {
  /** Directory that becomes the root, without kernel and initrd. */
  readonly tree: string
  readonly kernel: string
  readonly initrd: string
  /** Where the file system is mounted meanwhile. */
  readonly mountPoint: string
  /** Of another guest than the lab's. */
  readonly sizeBytes?: number
  /** Name of its file system. */
  readonly label?: string
}

export async function makeDisk(host: Host, disk: string, parts: DiskParts): Promise<void> {
  const { sizeBytes = diskBytes, label = guestLabel } = parts
  const file = await open(disk, 'wx', 0o644)
  try {
    await file.truncate(sizeBytes)
  } finally {
    await file.close()
  }
  // The boot loader reads neither 64-bit block numbers nor checksummed metadata.
  const features = '^64bit,^metadata_csum'
  await host.run([
    'mkfs.ext4',
    '-q',
    '-F',
    '-m',
    '0',
    '-O',
    features,
    '-L',
    label,
    '-b',
    '4096',
    '-d',
    parts.tree,
    disk,
  ])
  await installBootLoader(host, disk, parts)
}

async function installBootLoader(host: Host, disk: string, { mountPoint, kernel, initrd }: DiskParts) {
  await using mounted = await mountImage(host, { image: disk, target: mountPoint })
  await copyFile(kernel, join(mounted.target, 'boot/vmlinuz'))
  await copyFile(initrd, join(mounted.target, 'boot/initrd'))
  await host.run(['extlinux', '--install', join(mounted.target, 'boot')])
}
