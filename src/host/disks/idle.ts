/**
 * Whether anybody uses a block device: a file system that is mounted, swap, a holder such as a volume group, an array or an
 * encrypted disk, a program that has it open.
 */
import { Fault } from '#base/fault.ts'
import type { Host } from '../host.ts'
import { type BlockDevice, blockDevice } from './block-devices.ts'
import { physicalVolumes } from './lvm.ts'
import { openersOf } from './open-by.ts'

/** Nobody uses it, nor a partition of it. @throws Fault `conflict` naming who does, `missing` */
export async function requireIdle(host: Host, path: string): Promise<BlockDevice> {
  const device = await blockDevice(host, path)
  const user = (await userOf(host, device)) ?? (await opener(device))
  if (user === undefined) return device
  throw new Fault('conflict', `device '${path}' is in use: ${user}`, { remedy: 'End that use first.' })
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
