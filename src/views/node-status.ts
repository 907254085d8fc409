/** A node in PVE's shape: the short line of a list and the long answer of its status. */
import { array, boolean, integer, number, object, optional, type Static, string } from '#base/schema/schema.ts'
import { enumOf } from '#base/schema/schema.ts'
import type { NodeFacts } from '#cluster/node-facts.ts'
import { apiVersion, buildId } from '#cluster/version.ts'
import type { May } from './volume-access.ts'

const bytes = (description: string) => integer({ description: `${description}, in bytes.` })

export const nodeItem = object({
  node: string({ description: 'Name of the node.' }),
  type: string({ description: 'Always `node`.' }),
  id: string({ description: '`node/` and its name.' }),
  status: enumOf(['unknown', 'online', 'offline'], { description: 'Whether it answers.' }),
  level: optional(string({ description: 'Support level; empty.' })),
  cpu: optional(number({ description: 'Part of its processors in use, from 0 to 1.' })),
  maxcpu: optional(integer({ description: 'Processors.' })),
  mem: optional(bytes('Memory in use')),
  maxmem: optional(bytes('Memory')),
  disk: optional(bytes('Used on the root file system')),
  maxdisk: optional(bytes('Size of the root file system')),
  uptime: optional(integer({ description: 'Seconds since boot.' })),
})

/** The nodes of this cluster. Who may not audit a node sees that it exists and no more. */
export async function nodeList(facts: NodeFacts, node: string, may: May): Promise<Static<typeof nodeItem>[]> {
  const known = { node, type: 'node', id: `node/${node}`, status: 'online', level: '' } as const
  if (!(await may(`/nodes/${node}`, 'Sys.Audit'))) return [known]
  const { usage, memory, disk, processor, uptimeSeconds } = await facts.measures()
  return [
    {
      ...known,
      cpu: usage.busy,
      maxcpu: processor.threads,
      mem: memory.usedBytes,
      maxmem: memory.totalBytes,
      disk: disk.usedBytes,
      maxdisk: disk.totalBytes,
      uptime: uptimeSeconds,
    },
  ]
}

export const nodeStatus = object({
  uptime: integer({ description: 'Seconds since boot.' }),
  cpu: number({ description: 'Part of its processors in use, from 0 to 1.' }),
  wait: number({ description: 'Part of their time spent waiting for disks.' }),
  idle: number({ description: 'Part of their time without work.' }),
  loadavg: array(string({ description: 'Average over 1, 5 and 15 minutes.' })),
  kversion: string({ description: 'Kernel in one line.' }),
  'current-kernel': object({
    sysname: string({ description: 'Kind of kernel.' }),
    release: string({ description: 'Its release.' }),
    version: string({ description: 'Its build.' }),
    machine: string({ description: 'Architecture.' }),
  }),
  cpuinfo: object({
    model: string({ description: 'Model of the processor.' }),
    sockets: integer({ description: 'Sockets.' }),
    cores: integer({ description: 'Cores.' }),
    cpus: integer({ description: 'Hardware threads.' }),
    mhz: string({ description: 'Clock of the first one.' }),
    flags: string({ description: 'What it can do.' }),
    hvm: string({ description: '1 when it can run guests in hardware.' }),
    user_hz: integer({ description: 'Ticks of the kernel in a second.' }),
  }),
  memory: object({ total: bytes('All'), used: bytes('In use'), free: bytes('Unused'), available: bytes('Available') }),
  swap: object({ total: bytes('All'), used: bytes('In use'), free: bytes('Unused') }),
  rootfs: object({ total: bytes('All'), used: bytes('In use'), free: bytes('Unused'), avail: bytes('Available') }),
  ksm: object({ shared: bytes('Memory saved by merging equal pages') }),
  pveversion: string({ description: 'Version of the API, as PVE spells it.' }),
  'boot-info': object({
    mode: enumOf(['efi', 'legacy-bios'], { description: 'How the node was booted.' }),
    secureboot: optional(boolean({ description: 'Secure boot is in force.' })),
  }),
})

export async function statusOfNode(facts: NodeFacts): Promise<Static<typeof nodeStatus>> {
  const [measures, merged, boot] = await Promise.all([facts.measures(), facts.mergedBytes(), facts.boot()])
  const { usage, load, memory, disk, processor, uptimeSeconds } = measures
  const kernel = facts.kernel()
  const { model, sockets, cores, threads, mhz, flags, hasVirtualization } = processor
  const { totalBytes, usedBytes, freeBytes, availableBytes, swapTotalBytes, swapFreeBytes } = memory
  return {
    uptime: uptimeSeconds,
    cpu: usage.busy,
    wait: usage.wait,
    idle: Math.max(0, 1 - usage.busy - usage.wait),
    loadavg: load.map((average) => average.toFixed(2)),
    kversion: `${kernel.sysname} ${kernel.release} ${kernel.version}`,
    'current-kernel': kernel,
    cpuinfo: {
      model,
      sockets,
      cores,
      cpus: threads,
      flags,
      user_hz: 100,
      mhz: mhz.toFixed(3),
      hvm: hasVirtualization ? '1' : '0',
    },
    memory: { total: totalBytes, used: usedBytes, free: freeBytes, available: availableBytes },
    swap: { total: swapTotalBytes, used: swapTotalBytes - swapFreeBytes, free: swapFreeBytes },
    rootfs: { total: disk.totalBytes, used: disk.usedBytes, free: disk.freeBytes, avail: disk.availableBytes },
    ksm: { shared: merged },
    pveversion: `pve-manager/${apiVersion}/${buildId}`,
    'boot-info': { mode: boot.mode, ...(boot.mode === 'efi' ? { secureboot: boot.secureBoot } : {}) },
  }
}
