/**
 * Snapshots inside the qcow2 disks of a running guest.
 *
 * Without memory all disks are taken in one transaction, so they are of one moment. With memory QEMU halts the
 * processors itself while it writes their state into the first disk. Which disk that is follows from the options
 * alone, so whoever loads it looks where it was put.
 */
import { isFault } from '#base/fault.ts'
import type { QmpClient } from '#host/qmp.ts'
import type { Options } from '../config.ts'
import { nodeNameOf } from './drive-device.ts'
import { drivesOf, volumeIn } from './drive.ts'
import { endJob, runJob } from './job.ts'

const saveJob = 'snapshot-save'
const loadJob = 'snapshot-load'

/** Names of the drives of a guest that are disks. */
export function diskNames(options: Options): string[] {
  return drivesOf(options).flatMap(({ name }) => (volumeIn(name, options[name] ?? '') === undefined ? [] : [name]))
}

export async function saveDisks(monitor: QmpClient, drives: readonly string[], tag: string): Promise<void> {
  const actions = drives.map((drive) => ({
    type: 'blockdev-snapshot-internal-sync',
    data: { device: nodeNameOf(drive), name: tag },
  }))
  if (actions.length > 0) await monitor.execute('transaction', { actions })
}

/** Disks and memory. The processors go on afterwards if they ran. */
export async function saveMemory(monitor: QmpClient, options: Options, tag: string): Promise<void> {
  await runJob(monitor, 'snapshot-save', { 'job-id': saveJob, tag, ...placesOf(options) })
}

/** For a guest that was started and has not run yet. */
export async function loadMemory(
  monitor: QmpClient,
  options: Options,
  tag: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  await runJob(monitor, 'snapshot-load', { 'job-id': loadJob, tag, ...placesOf(options) }, { signal })
}

/** Waits for a save that somebody began and did not see to its end. */
export async function endSave(monitor: QmpClient): Promise<void> {
  await endJob(monitor, saveJob)
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

function placesOf(options: Options): { vmstate: string; devices: string[] } {
  const devices = diskNames(options).map(nodeNameOf)
  const [vmstate = ''] = devices
  return { vmstate, devices }
}
