/**
 * The small Linux guest of lab and tests, built once from the distribution's own packages and kept.
 *
 * Invariants: an image that is there is complete (it appears by one rename); its key stands for everything
 * the project puts in and for this machine's busybox and release, but not for the kernel's version: a lab
 * that works must go on working without a network after the package lists learned of a newer kernel. The
 * versions that went in are in `facts.json` beside the disk.
 *
 * Who may run beside whom: one builder at a time holds `lock`; others wait for it and find the image. The
 * lock saves work only. Two builders at once would each make a whole image, and one rename would win.
 */
import { createHash } from 'node:crypto'
import { copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import { codeOf } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { unmountBelow } from '#host/mount.ts'
import { packArchive } from '#host/small-linux.ts'
import { holdLock } from '#host/build-lock.ts'
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
  const key = await imageKey(request.host)
  const home = join(request.cacheDir, 'guest')
  const found = await imageAt(join(home, key), key)
  if (found) return found
  await mkdir(home, { recursive: true, mode: 0o755 })
  await using _lock = await holdLock(join(home, 'lock'), request)
  return (await imageAt(join(home, key), key)) ?? (await build(request, home, key))
}

async function imageAt(directory: string, key: string): Promise<GuestImage | undefined> {
  const path = join(directory, 'disk.raw')
  try {
    const { size } = await stat(path)
    const [kernel, initrd] = [join(directory, 'vmlinuz'), join(directory, 'initrd')]
    return { path, sizeBytes: size, format: 'raw', key, kernel, initrd }
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw error
  }
}

async function imageKey(host: Host): Promise<string> {
  const hash = createHash('sha256')
  for (const entry of (await readdir(guestFiles, { recursive: true, withFileTypes: true })).toSorted(byPath)) {
    if (!entry.isFile()) continue
    const path = join(entry.parentPath, entry.name)
    hash.update(`${path.slice(guestFiles.length)}\n`).update(await readFile(path))
  }
  for (const maker of ['guest-disk.ts', 'guest-packages.ts', 'guest-root.ts', '../host/small-linux.ts']) {
    hash.update(await readFile(join(import.meta.dirname, maker)))
  }
  const { stdout } = await host.run(['dpkg-query', '--show', 'busybox-static', 'libc6'], { okCodes: [0, 1] })
  if (!stdout.includes('busybox-static')) throw absentBusybox()
  return hash.update(stdout).digest('hex').slice(0, 16)
}

function absentBusybox(): Fault {
  return new Fault('missing', "the package 'busybox-static' is not installed: the lab's guest is made of it", {
    remedy: 'Run `./hako lab`, which installs what is missing, or `apt-get install busybox-static`.',
  })
}

const byPath = (a: { parentPath: string; name: string }, b: { parentPath: string; name: string }) =>
  join(a.parentPath, a.name) < join(b.parentPath, b.name) ? -1 : 1

async function build({ host, signal, say = () => {} }: ImageRequest, home: string, key: string): Promise<GuestImage> {
  await sweep(host, home)
  const place = await mkdtemp(join(home, '.build-'))
  await using scope = new AsyncDisposableStack()
  scope.defer(() => rm(place, { recursive: true, force: true }))

  say('fetching the kernel and the guest agent from the distribution')
  const packagesDir = join(place, 'packages')
  await mkdir(packagesDir)
  const packages = await unpackPackages(host, packagesDir, signal)

  say('laying out the root file system')
  const [root, small, result] = [join(place, 'root'), join(place, 'small'), join(place, 'result')]
  await mkdir(result)
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
  return publish(result, join(home, key), key)
}

async function publish(result: string, target: string, key: string): Promise<GuestImage> {
  try {
    await rename(result, target)
  } catch (error) {
    // Somebody built the same image meanwhile; theirs is as good.
    if (codeOf(error) !== 'ENOTEMPTY' && codeOf(error) !== 'EEXIST') throw error
  }
  const image = await imageAt(target, key)
  if (!image) throw new Fault('failed', `the guest image '${target}' vanished while it was built`)
  return image
}

/** Removes what builders that were killed left behind, mounts included. */
async function sweep(host: Host, home: string): Promise<void> {
  for (const name of await readdir(home)) {
    if (!name.startsWith('.build-')) continue
    await unmountBelow(host, join(home, name))
    await rm(join(home, name), { recursive: true, force: true })
  }
}
