/**
 * Records of what is written to a guest's drives: dirty bitmaps of QEMU, by drive and name.
 *
 * In a qcow2 image a bitmap is stored when QEMU closes it, and found again when any program that knows bitmaps opens it;
 * elsewhere it lives as long as QEMU (and is kept beside the disk then: `kept-bitmaps.ts`). One whose QEMU was killed is
 * there afterwards, but cannot be used.
 */
import { KiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import type { QmpClient } from '#host/qemu/qmp.ts'
import { nodeNameOf } from './drive-device.ts'

export interface DirtyBitmap {
  readonly name: string
  /** It has seen every write since it began. */
  readonly isWhole: boolean
  readonly dirtyBytes: number
}

const granularity = 64 * KiB

interface BitmapInfo {
  readonly name?: string
  readonly count: number
  readonly recording: boolean
  readonly inconsistent?: boolean
  readonly persistent: boolean
}

interface Node {
  readonly 'node-name': string
  readonly file: string
  readonly image: { readonly 'virtual-size': number }
  readonly 'dirty-bitmaps'?: readonly BitmapInfo[]
}

const nodesOf = (monitor: QmpClient) => monitor.execute<readonly Node[]>('query-named-block-nodes', { flat: true })

/** Bitmaps of one block node. */
export interface DriveBitmaps {
  readonly node: string
  readonly names: readonly string[]
}

/** With what they are about. */
export interface PassingBitmaps extends DriveBitmaps {
  readonly path: string
  readonly sizeBytes: number
}

/** Bitmaps no image keeps: where their QEMU is to be another, they have to be sent. */
export async function passingBitmaps(monitor: QmpClient): Promise<PassingBitmaps[]> {
  return (await nodesOf(monitor)).flatMap(({ 'node-name': node, file: path, image, 'dirty-bitmaps': bitmaps = [] }) => {
    const names = bitmaps.flatMap(({ name, persistent, recording }) => {
      return name === undefined || persistent || !recording ? [] : [name]
    })
    return names.length === 0 ? [] : [{ node, names, path, sizeBytes: image['virtual-size'] }]
  })
}

/** Those of a drive that have a name. None for a drive that is not there. */
export async function dirtyBitmaps(monitor: QmpClient, drive: string): Promise<DirtyBitmap[]> {
  return bitmapsOf(monitor, nodeNameOf(drive))
}

/** Those of a block node that have a name. */
export async function bitmapsOf(monitor: QmpClient, name: string): Promise<DirtyBitmap[]> {
  const nodes = await nodesOf(monitor)
  const list = nodes.find((node) => node['node-name'] === name)?.['dirty-bitmaps'] ?? []
  return list.flatMap(({ name, count, recording, inconsistent = false }) => {
    return name === undefined ? [] : [{ name, isWhole: recording && !inconsistent, dirtyBytes: count }]
  })
}

/** From now on every write is recorded, beyond the end of QEMU where the image can keep that. */
export async function startBitmap(monitor: QmpClient, drive: string, name: string): Promise<void> {
  const bitmap = { node: nodeNameOf(drive), name, granularity }
  try {
    await monitor.execute('block-dirty-bitmap-add', { ...bitmap, persistent: true })
  } catch (cause) {
    if (!isFault(cause, 'failed')) throw cause
    await monitor.execute('block-dirty-bitmap-add', bitmap)
  }
}

/** What the bitmap of one block node has recorded until now, in a new one of that name at another. */
export async function mergeBitmap(
  monitor: QmpClient,
  name: string,
  from: string,
  to: string,
  how: { readonly persistent?: boolean; readonly disabled?: boolean },
): Promise<void> {
  await monitor.execute('block-dirty-bitmap-add', { node: to, name, granularity, ...how })
  await monitor.execute('block-dirty-bitmap-merge', { node: to, target: name, bitmaps: [{ node: from, name }] })
}

/** What one has recorded until now, under another name; it records no further and ends with QEMU. */
export async function copyBitmap(monitor: QmpClient, drive: string, from: string, to: string): Promise<void> {
  const node = nodeNameOf(drive)
  await monitor.execute('block-dirty-bitmap-add', { node, name: to, granularity, disabled: true })
  await monitor.execute('block-dirty-bitmap-merge', { node, target: to, bitmaps: [from] })
}

/** Harmless when it is not there. */
export async function removeBitmap(monitor: QmpClient, drive: string, name: string): Promise<void> {
  try {
    await monitor.execute('block-dirty-bitmap-remove', { node: nodeNameOf(drive), name })
  } catch (cause) {
    if (!isFault(cause, 'failed') || !/not found|Cannot find/i.test(cause.message)) throw cause
  }
}

/** Before the disk is made another one: what was recorded is of no use then, and QEMU refuses as long as it is there. */
export async function removeBitmaps(monitor: QmpClient, drive: string): Promise<void> {
  for (const { name } of await dirtyBitmaps(monitor, drive)) await removeBitmap(monitor, drive, name)
}
