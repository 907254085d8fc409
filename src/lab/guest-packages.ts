/**
 * The distribution's packages the guest is made of, unpacked into a directory and never installed: a kernel
 * that is installed would rebuild the machine's own initrd and boot menu.
 */
import { existsSync } from 'node:fs'
import { readdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import type { Argv, Host } from '#host/host.ts'

export interface UnpackedPackages {
  /** As `uname -r` prints it in the guest. */
  readonly kernelRelease: string
  readonly vmlinuz: string
  /** Directory that holds `lib/modules/<kernelRelease>`. */
  readonly modulesBase: string
  readonly agent: string
  /** Name and version of each package, `qemu-guest-agent_1%3a7.2_amd64`. */
  readonly packages: readonly string[]
}

const downloadMs = 300_000
const metaPackage = 'linux-image-cloud-amd64'
const agentPackage = 'qemu-guest-agent'
// The download runs as root in a directory of ours; apt's own user cannot write there and apt warns.
const apt: Argv = ['apt-get', '--quiet', '-o', 'APT::Sandbox::User=root']

/** @throws Fault `missing` naming the package no configured source offers, `failed` when a download fails. */
export async function unpackPackages(host: Host, into: string, signal?: AbortSignal): Promise<UnpackedPackages> {
  const kernel = (await kernelPackage(host)) ?? (await kernelAfterUpdate(host, signal))
  await host.run([...apt, 'download', kernel, agentPackage], { cwd: into, timeoutMs: downloadMs, signal })
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
    agent: join(root, 'usr/sbin/qemu-ga'),
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
    remedy: "The lab's guest boots Debian's cloud kernel: add Debian's main archive for amd64 to the package sources.",
  })
}
