/**
 * Which disks may be written to. Whoever is about to destroy what is on a device asks here first.
 *
 * Refused is what is not this node's to touch, and what anybody uses. Each refusal names the user. The tools that write
 * ask the kernel for the device alone besides, so that who comes between is noticed too.
 */
import { realpath, stat } from 'node:fs/promises'
import { Fault, missing } from '#base/fault.ts'
import type { BlockDevice } from '#host/disks/block-devices.ts'
import { requireIdle } from '#host/disks/idle.ts'
import type { Host } from '#host/host.ts'

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
