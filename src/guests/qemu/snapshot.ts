/**
 * Snapshots inside the qcow2 disks of a running guest.
 *
 * Without memory all disks are taken in one transaction, so they are of one moment. With memory QEMU halts the
 * processors itself while it writes their state into the first disk, or into a volume of its own. Which disk that is
 * follows from the options alone, so whoever loads it looks where it was put.
 */
import { isFault } from '#base/fault.ts'
import type { VolumeId } from '#base/ids.ts'
import type { QmpClient } from '#host/qemu/qmp.ts'
import type { Options } from '../config.ts'
import type { GuestStorage } from '../needs.ts'
import { removeBlockNode } from './block-nodes.ts'
import { removeBitmaps } from './dirty-bitmap.ts'
import { nodeNameOf } from './drive-device.ts'
import { drivesOf, volumeIn } from './drive.ts'
import { endJob, runJob } from './job.ts'

const saveJob = 'snapshot-save'
const loadJob = 'snapshot-load'
/** Block node of the volume that is for memory alone. */
const stateNode = 'state'

/** Names of the drives of a guest that can hold snapshots inside. Of others the storage takes them, or there are none. */
export function disksWithin(options: Options): string[] {
  return drivesOf(options).flatMap(({ name }) => {
    const volid = volumeIn(name, options[name] ?? '')
    return volid === undefined || volid.endsWith('.raw') ? [] : [name]
  })
}

export async function saveDisks(monitor: QmpClient, drives: readonly string[], tag: string): Promise<void> {
  const actions = drives.map((drive) => ({
    type: 'blockdev-snapshot-internal-sync',
    data: { device: nodeNameOf(drive), name: tag },
  }))
  if (actions.length > 0) await monitor.execute('transaction', { actions })
}

export interface StatePlace {
  readonly storage: Pick<GuestStorage, 'giveTo' | 'location'>
  readonly uid: number
  readonly signal?: AbortSignal | undefined
}

/** What is kept, and where. */
type Kept = { readonly tag: string; readonly volume?: VolumeId | undefined }

/** Disks and memory. The processors go on afterwards if they ran. */
export async function saveMemory(monitor: QmpClient, options: Options, kept: Kept, place: StatePlace): Promise<void> {
  await withStateNode(monitor, kept.volume, place, () =>
    runJob(monitor, 'snapshot-save', { 'job-id': saveJob, tag: kept.tag, ...placesOf(options, kept) }),
  )
}

/** For a guest that was started and has not run yet. */
export async function loadMemory(monitor: QmpClient, options: Options, kept: Kept, place: StatePlace): Promise<void> {
  for (const drive of disksWithin(options)) await removeBitmaps(monitor, drive)
  const job = { 'job-id': loadJob, tag: kept.tag, ...placesOf(options, kept) }
  await withStateNode(monitor, kept.volume, place, () => runJob(monitor, 'snapshot-load', job, place))
}

/** QEMU has the volume of the memory open as long as it reads or writes it, and no longer. */
async function withStateNode(
  monitor: QmpClient,
  volume: VolumeId | undefined,
  { storage, uid }: StatePlace,
  act: () => Promise<void>,
): Promise<void> {
  if (volume === undefined) return act()
  await storage.giveTo(volume, uid)
  const { path: filename, format: driver } = await storage.location(volume)
  await removeBlockNode(monitor, stateNode)
  await monitor.execute('blockdev-add', { driver, 'node-name': stateNode, file: { driver: 'file', filename } })
  await act()
  await removeBlockNode(monitor, stateNode)
}

/** Waits for a save that somebody began and did not see to its end. */
export async function endSave(monitor: QmpClient): Promise<void> {
  await endJob(monitor, saveJob)
  await removeBlockNode(monitor, stateNode)
}

/** Removes the snapshot from every disk that has it. */
export async function dropSnapshot(monitor: QmpClient, drives: readonly string[], tag: string): Promise<void> {
  for (const drive of drives) {
    try {
      await monitor.execute('blockdev-snapshot-delete-internal-sync', { device: nodeNameOf(drive), name: tag })
    } catch (cause) {
      if (!isFault(cause, 'failed') || !/does not exist/.test(cause.message)) throw cause
    }
  }
}

function placesOf(options: Options, { volume }: Kept): { vmstate: string; devices: string[] } {
  const disks = disksWithin(options).map(nodeNameOf)
  const devices = volume === undefined ? disks : [stateNode, ...disks]
  const [vmstate = ''] = devices
  return { vmstate, devices }
}
