/**
 * Which disks may be written to. Whoever is about to destroy what is on a device asks here first.
 *
 * Refused is what is not this node's to touch, and what anybody uses: a file system that is mounted, swap, a holder such
 * as a volume group, an array or an encrypted disk, a program that has the device open. Each refusal names the user. The
 * tools that write ask the kernel for the device alone besides, so that who comes between is noticed too.
 */
import { realpath, stat } from 'node:fs/promises'
import { Fault, missing } from '#base/fault.ts'
import { type BlockDevice, blockDevice } from '#host/disks/block-devices.ts'
import type { Host } from '#host/host.ts'
import { physicalVolumes } from '#host/disks/lvm.ts'
import { openersOf } from '#host/disks/open-by.ts'

export interface DiskOwnership {
  readonly machineRoot?: string
  readonly devices?: readonly string[]
}

/** The device by its plain name. @throws Fault `missing`; `conflict` when it is not this node's to touch */
export async function requireOurs(node: DiskOwnership, device: string): Promise<string> {
  const path = await realpath(device).catch(() => {
    throw missing('device', device)
  })
  const facts = await stat(path)
  if (!path.startsWith('/dev/') || !facts.isBlockDevice()) throw new Fault('invalid', `'${device}' is no disk`)
  if (node.machineRoot !== '/' && !node.devices?.includes(path)) {
    throw new Fault('conflict', `the disk '${path}' belongs to the machine, which this node shares with others`, {
      remedy: 'Do it on the machine itself, or give the node the device (HAKO_DEVICES).',
    })
  }
  return path
}

/** Nobody uses it, nor a partition of it. @throws Fault `conflict` naming who does */
export async function requireIdle(host: Host, path: string): Promise<BlockDevice> {
  const device = await blockDevice(host, path)
  const user = (await userOf(host, device)) ?? (await opener(device))
  if (user === undefined) return device
  throw new Fault('conflict', `device '${path}' is in use: ${user}`, { remedy: 'End that use first.' })
}

/** Nobody uses it and nothing is on it but, maybe, an empty partition table. @throws Fault `conflict` naming what is */
export async function requireEmpty(host: Host, path: string): Promise<BlockDevice> {
  const device = await requireIdle(host, path)
  const what =
    device.children.length > 0
      ? `the partition '${device.children[0]?.path ?? ''}'`
      : device.fileSystem !== undefined
        ? `'${device.fileSystem}'`
        : device.partitionTable !== undefined && device.partitionTable !== 'gpt'
          ? `a partition table of type '${device.partitionTable}'`
          : undefined
  if (what === undefined) return device
  throw new Fault('conflict', `device '${path}' is already in use: there is ${what} on it`, {
    remedy: `When nobody needs that any more, wipe it first: \`hako disk wipe ${path} --confirm ${path}\`.`,
  })
}

async function userOf(host: Host, device: BlockDevice): Promise<string | undefined> {
  const { path, mountPoints, fileSystem, children } = device
  const [mounted] = mountPoints
  if (mounted !== undefined) return mounted === '[SWAP]' ? `'${path}' is swap` : `'${path}' is mounted on '${mounted}'`
  const holder = children.find(({ type }) => type !== 'part')
  if (holder) return `'${path}' is held by '${holder.path}' (${holder.type})`
  if (fileSystem === 'LVM2_member') {
    const group = (await physicalVolumes(host)).find((volume) => volume.device === path)?.group
    if (group !== undefined) return `'${path}' is part of the volume group '${group}'`
  }
  for (const child of children) {
    const user = await userOf(host, child)
    if (user !== undefined) return user
  }
  return undefined
}

async function opener({ path, children }: BlockDevice): Promise<string | undefined> {
  for (const one of [path, ...children.map((child) => child.path)]) {
    const [first] = await openersOf(one)
    if (first) return `'${one}' is open in process ${first.pid} (${first.program})`
  }
  return undefined
}
