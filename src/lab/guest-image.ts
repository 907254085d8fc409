/**
 * The small Linux guest of lab and tests, built once from the distribution's own packages and kept.
 *
 * Its key stands for everything the project puts in and for this machine's busybox and release, but not for the kernel's
 * version: a lab that works must go on working without a network after the package lists learned of a newer kernel. The
 * versions that went in are in `facts.json` beside the disk.
 */
import { copyFile, mkdir, rename, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import type { Host } from '#host/host.ts'
import { keptBuild, keyOf } from '#host/files/kept-build.ts'
import { packArchive } from '#host/qemu/small-linux.ts'
import { makeDisk } from './guest-disk.ts'
import { unpackPackages } from './guest-packages.ts'
import { guestFiles, layInitrd, layRoot } from './guest-root.ts'

export interface GuestImage {
  /** Raw disk that boots by BIOS from virtio-scsi or virtio-blk. */
  readonly path: string
  readonly sizeBytes: number
  readonly format: 'raw'
  /** Changes when the image's making does. */
  readonly key: string
  /** For booting without a disk: the whole guest runs from `initrd` in memory. */
  readonly kernel: string
  readonly initrd: string
}

export interface ImageRequest {
  readonly host: Host
  readonly cacheDir: string
  readonly signal?: AbortSignal | undefined
  /** Told what is being done, a sentence each. */
  readonly say?: (line: string) => void
}

/** The image from the cache, or built now. @throws Fault `missing` for a package or tool, `exhausted` without space. */
export async function ensureGuestImage(request: ImageRequest): Promise<GuestImage> {
  const { host, cacheDir, signal } = request
  const key = await imageKey(host)
  const home = join(cacheDir, 'guest')
  const make = (place: string, result: string) => makeImage(request, { place, result, key })
  const directory = await keptBuild(host, { home, key, file: 'disk.raw', make, signal })
  const path = join(directory, 'disk.raw')
  const [kernel, initrd] = [join(directory, 'vmlinuz'), join(directory, 'initrd')]
  return { path, sizeBytes: (await stat(path)).size, format: 'raw', key, kernel, initrd }
}

async function imageKey(host: Host): Promise<string> {
  const makers = ['guest-disk.ts', 'guest-packages.ts', 'guest-root.ts', '../host/qemu/small-linux.ts']
  const { stdout } = await host.run(['dpkg-query', '--show', 'busybox-static', 'libc6'], { okCodes: [0, 1] })
  if (!stdout.includes('busybox-static')) throw absentBusybox()
  return keyOf([stdout], [guestFiles, ...makers.map((maker) => join(import.meta.dirname, maker))])
}

function absentBusybox(): Fault {
  return new Fault('missing', "the package 'busybox-static' is not installed: the lab's guest is made of it", {
    remedy: 'Run `./hako lab`, which installs what is missing, or `apt-get install busybox-static`.',
  })
}

interface Places {
  readonly place: string
  readonly result: string
  readonly key: string
}

async function makeImage(
  { host, signal, say = () => {} }: ImageRequest,
  { place, result, key }: Places,
): Promise<void> {
  say('fetching the kernel and the guest agent from the distribution')
  const packagesDir = join(place, 'packages')
  await mkdir(packagesDir)
  const packages = await unpackPackages(host, packagesDir, signal)

  say('laying out the root file system')
  const [root, small] = [join(place, 'root'), join(place, 'small')]
  await layInitrd(host, packages, small)
  await packArchive(host, small, join(place, 'small-initrd'))
  await layRoot(host, packages, root)
  await packArchive(host, root, join(place, 'initrd'))

  say('writing the disk and its boot loader')
  await makeDisk(host, join(result, 'disk.raw'), {
    tree: root,
    kernel: packages.vmlinuz,
    initrd: join(place, 'small-initrd'),
    mountPoint: join(place, 'mounted'),
  })
  await copyFile(packages.vmlinuz, join(result, 'vmlinuz'))
  await rename(join(place, 'initrd'), join(result, 'initrd'))
  await writeFile(join(result, 'facts.json'), `${JSON.stringify({ key, packages: packages.packages }, undefined, 2)}\n`)
}
