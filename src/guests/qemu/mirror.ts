/**
 * Moves a disk of a running guest to another image, without the guest noticing.
 *
 * A mirror job copies the disk and every write to both; then the device is switched over. Afterwards the block node that
 * the device uses has the drive's own name again (`drive-scsi0`), because backups and snapshots address drives by it:
 * QEMU cannot rename a node, so a thin one of that name is put on top of the new image.
 *
 * What is made bears the drive's name and the caller's mark, so that whoever takes it back needs no memory.
 */
import type { QmpClient } from '#host/qemu/qmp.ts'
import { removeBlockNode } from './block-nodes.ts'
import { blockNode, type DriveFile } from './drive-argv.ts'
import { nodeNameOf } from './drive-device.ts'
import type { Drive } from './drive.ts'
import { endJob, type JobHow, untilEnd, untilStatus } from './job.ts'

const prefixOf = (drive: string) => `move-${drive}-`
/** Name of the node of the new image; names of nodes have at most 31 characters. */
export const targetNode = (drive: string, mark: string) => `${prefixOf(drive)}${mark.slice(0, 8)}`
const jobOf = (drive: string) => `move-${drive}`

export interface MirrorHow extends JobHow {
  /** Bytes per second; 0: no limit. */
  readonly bytesPerSecond?: number
}

/** Opens the new image and copies until both are the same, and stay so. */
export async function startMirror(
  monitor: QmpClient,
  drive: Drive,
  file: DriveFile,
  mark: string,
  { bytesPerSecond = 0, ...how }: MirrorHow,
): Promise<void> {
  const { name } = drive
  const target = targetNode(name, mark)
  await monitor.execute('blockdev-add', blockNode(drive, file, target))
  await monitor.execute('blockdev-mirror', {
    'job-id': jobOf(name),
    device: nodeNameOf(name),
    target,
    sync: 'full',
    'copy-mode': 'write-blocking',
    'auto-dismiss': false,
    speed: bytesPerSecond,
  })
  await untilStatus(monitor, jobOf(name), ['ready'], how)
}

/** Switches the device over. */
export async function pivot(monitor: QmpClient, drive: Drive, mark: string): Promise<void> {
  await monitor.execute('job-complete', { id: jobOf(drive.name) })
  await untilEnd(monitor, jobOf(drive.name))
  await settle(monitor, drive, mark)
}

/** True when the device uses the new image. */
export async function hasPivoted(monitor: QmpClient, drive: string, mark: string): Promise<boolean> {
  const nodes = await nodesOf(monitor)
  return await isBelow(monitor, nodes, drive, targetNode(drive, mark))
}

/** After a switch-over: gives the drive's name to what its device uses, and closes the old image. May run twice. */
export async function settle(monitor: QmpClient, drive: Drive, mark: string): Promise<void> {
  const { name } = drive
  const [own, target] = [nodeNameOf(name), targetNode(name, mark)]
  const used = await deviceOf(monitor, [target, own])
  if (used?.node !== target) return
  await removeBlockNode(monitor, own)
  for (const node of await nodesOf(monitor)) {
    if (node.name.startsWith(prefixOf(name)) && node.name !== target) await removeBlockNode(monitor, node.name)
  }
  await monitor.execute('blockdev-add', {
    driver: 'raw',
    'node-name': own,
    'read-only': drive.values.ro === true,
    discard: drive.values.discard === 'on' ? 'unmap' : 'ignore',
    file: target,
  })
  await monitor.execute('qom-set', { path: used.path, property: 'drive', value: own })
}

/** Before a switch-over: ends the job and closes the new image. May run twice. */
export async function abandonMirror(monitor: QmpClient, drive: string, mark: string): Promise<void> {
  await endJob(monitor, jobOf(drive))
  await removeBlockNode(monitor, targetNode(drive, mark))
}

interface Node {
  readonly name: string
  readonly file: string
}

async function nodesOf(monitor: QmpClient): Promise<Node[]> {
  const nodes = await monitor.execute<readonly { readonly 'node-name': string; readonly file: string }[]>(
    'query-named-block-nodes',
    { flat: true },
  )
  return nodes.map((node) => ({ name: node['node-name'], file: node.file }))
}

/** The device uses `target` itself, or the node of its own name that shows the same file. */
async function isBelow(monitor: QmpClient, nodes: readonly Node[], drive: string, target: string): Promise<boolean> {
  const used = await deviceOf(monitor, [target, nodeNameOf(drive)])
  const fileOf = (name: string) => nodes.find((node) => node.name === name)?.file
  const [path, shown] = [fileOf(target), used && fileOf(used.node)]
  // A node on top of another shows the file below it, by its path or within a description of both.
  return path !== undefined && shown !== undefined && (shown === path || shown.includes(`"${path}"`))
}

interface BlockDevice {
  readonly qdev?: string
  readonly inserted?: { readonly 'node-name'?: string }
}

/** The device that uses one of these nodes, by its path. */
async function deviceOf(
  monitor: QmpClient,
  names: readonly string[],
): Promise<{ path: string; node: string } | undefined> {
  for (const { qdev, inserted } of await monitor.execute<readonly BlockDevice[]>('query-block')) {
    const node = inserted?.['node-name']
    if (qdev === undefined || node === undefined || !names.includes(node)) continue
    return { node, path: qdev.startsWith('/') ? qdev : `/machine/peripheral/${qdev}` }
  }
  return undefined
}
