/**
 * A small Linux that boots in a machine of its own: the distribution's kernel, which is unpacked and never installed (a
 * kernel that is installed would rebuild the machine's own initrd and boot menu), and programs of this machine with the
 * libraries they were linked against.
 */
import { existsSync } from 'node:fs'
import { copyFile, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { zstdCompressSync } from 'node:zlib'
import { Fault } from '#base/fault.ts'
import type { Argv, Host } from '../host.ts'

export interface UnpackedKernel {
  /** As `uname -r` prints it in the guest. */
  readonly kernelRelease: string
  readonly vmlinuz: string
  /** Directory that holds `lib/modules/<kernelRelease>`. */
  readonly modulesBase: string
  /** Name and version of each package, `qemu-guest-agent_1%3a7.2_amd64`. */
  readonly packages: readonly string[]
}

const downloadMs = 300_000
const metaPackage = 'linux-image-cloud-amd64'
// The download runs as root in a directory of ours; apt's own user cannot write there and apt warns.
const apt: Argv = ['apt-get', '--quiet', '-o', 'APT::Sandbox::User=root']

/**
 * @param more further packages that are unpacked beside it
 * @throws Fault `missing` naming the package no configured source offers, `failed` when a download fails
 */
export async function unpackKernel(
  host: Host,
  into: string,
  { more = [], signal }: { readonly more?: readonly string[]; readonly signal?: AbortSignal | undefined } = {},
): Promise<UnpackedKernel> {
  const kernel = (await kernelPackage(host)) ?? (await kernelAfterUpdate(host, signal))
  await host.run([...apt, 'download', kernel, ...more], { cwd: into, timeoutMs: downloadMs, signal })
  const files = (await readdir(into)).filter((name) => name.endsWith('.deb'))
  for (const file of files) {
    await host.run(['dpkg-deb', '-x', file, 'unpacked'], { cwd: into, timeoutMs: downloadMs, signal })
  }
  const root = join(into, 'unpacked')
  const kernelRelease = kernel.replace(/^linux-image-/, '')
  // Debian 13 ships modules below /usr/lib, older releases below /lib; the tools look below /lib.
  if (!existsSync(join(root, 'lib/modules'))) await symlink('usr/lib', join(root, 'lib'))
  await host.run(['depmod', '-b', root, kernelRelease])
  return {
    kernelRelease,
    vmlinuz: join(root, 'boot', `vmlinuz-${kernelRelease}`),
    modulesBase: root,
    packages: files.map((name) => name.replace(/\.deb$/, '')).toSorted(),
  }
}

async function kernelPackage(host: Host): Promise<string | undefined> {
  // 100: apt knows no such package, which is an answer.
  const { stdout } = await host.run(['apt-cache', 'depends', metaPackage], { okCodes: [0, 100] })
  return kernelNamedIn(stdout)
}

/** The real kernel package in the reply of `apt-cache depends`. */
export function kernelNamedIn(reply: string): string | undefined {
  return /^\s*\|?Depends: (linux-image-\d\S+)$/m.exec(reply)?.[1]
}

/** A fresh machine may have empty package lists; one update is worth a try. */
async function kernelAfterUpdate(host: Host, signal?: AbortSignal): Promise<string> {
  await host.run([...apt, 'update'], { timeoutMs: downloadMs, signal })
  const kernel = await kernelPackage(host)
  if (kernel) return kernel
  throw new Fault('missing', `the package '${metaPackage}' is in none of this machine's package sources`, {
    remedy: "A small guest boots Debian's cloud kernel: add Debian's main archive for amd64 to the package sources.",
  })
}

/** The busybox of this machine under its many names. @throws Fault `failed` without it */
export async function layBusybox(host: Host, into: string): Promise<void> {
  await mkdir(join(into, 'bin'), { recursive: true })
  for (const name of ['sbin', 'usr/bin', 'usr/sbin']) {
    await mkdir(dirname(join(into, name)), { recursive: true })
    await symlink(name === 'sbin' ? 'bin' : '../bin', join(into, name))
  }
  await copyFile('/bin/busybox', join(into, 'bin/busybox'))
  const { stdout } = await host.run(['/bin/busybox', '--list'])
  for (const applet of stdout.split('\n').filter((name) => name !== '' && name !== 'busybox')) {
    await symlink('busybox', join(into, 'bin', applet))
  }
}

/** Modules with those they need. */
export async function layModules(
  host: Host,
  { modulesBase, kernelRelease }: Pick<UnpackedKernel, 'modulesBase' | 'kernelRelease'>,
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

/** A program of this machine, in the place of an applet of that name, with its libraries. @throws Fault `missing` naming a library */
export async function layProgram(host: Host, program: string, into: string, as: string): Promise<void> {
  await rm(join(into, 'bin', as), { force: true })
  await copyFile(program, join(into, 'bin', as))
  const { stdout } = await host.run(['ldd', program])
  for (const library of librariesIn(stdout)) {
    await mkdir(join(into, dirname(library)), { recursive: true })
    await copyFile(library, join(into, library))
  }
}

/** The absolute paths in a reply of `ldd`. @throws Fault `missing` naming a library that is not there. */
export function librariesIn(reply: string): string[] {
  const absent = /^\s*(\S+) => not found$/m.exec(reply)
  if (absent) {
    throw new Fault('missing', `a program for a small guest needs the library '${absent[1]}', which is not installed`, {
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
