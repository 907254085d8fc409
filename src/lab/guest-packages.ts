/** The distribution's packages the guest is made of: a kernel, and the agent. */
import { join } from 'node:path'
import type { Host } from '#host/host.ts'
import { type UnpackedKernel, unpackKernel } from '#host/qemu/small-linux.ts'

export interface UnpackedPackages extends UnpackedKernel {
  readonly agent: string
}

const agentPackage = 'qemu-guest-agent'

/** @throws Fault `missing` naming the package no configured source offers, `failed` when a download fails. */
export async function unpackPackages(host: Host, into: string, signal?: AbortSignal): Promise<UnpackedPackages> {
  const unpacked = await unpackKernel(host, into, { more: [agentPackage], signal })
  return { ...unpacked, agent: join(unpacked.modulesBase, 'usr/sbin/qemu-ga') }
}
