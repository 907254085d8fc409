/**
 * Takes a snapshot of a container: of all its volumes at one moment, and of its configuration.
 *
 * A running container is held while that is done, for as long as the storages take: what its processes had in memory is
 * not kept. As in Proxmox VE every volume is part of it, whether or not backups include it, and a folder of the node can
 * be no part.
 */
import { type Clock, seconds } from '#base/clock.ts'
import { asVmid, type Vmid, type VolumeId } from '#base/ids.ts'
import type { Options, Snapshot } from '#guests/config.ts'
import { mountedVolumes, mountsOf, wishOf } from '#guests/lxc/mountpoint.ts'
import { noSnapshots } from '#storage/links.ts'
import type { StorageService } from '#storage/service.ts'
import { operation } from '#tasks/operation.ts'
import { aboutOneGuest } from './one-guest.ts'
import type { DiskDeps } from './resize.ts'
import { keptOptions, rememberSnapshot, requireNewSnapshot, unrememberSnapshot } from './snapshot-config.ts'
import { dropEverywhere } from './snapshot-disks.ts'

export interface SnapshotContainer {
  readonly vmid: number
  readonly name: string
  readonly description?: string | undefined
}

export interface SnapshotContainerDeps extends DiskDeps {
  readonly clock: Clock
}

export const snapshotContainer = operation<SnapshotContainer, SnapshotContainerDeps>('vzsnapshot', aboutOneGuest)
  .step('check', {
    do: async ({ params, deps }) => {
      const vmid = asVmid(params.vmid)
      await deps.guests.requireUnlocked(vmid)
      const config = await deps.guests.config(vmid, 'lxc')
      requireNewSnapshot(vmid, config, params.name, 'lxc')
      const volumes = await volumesToTake(deps.storage, config.options)
      const { description = '' } = params
      const snapshot: Snapshot = { options: keptOptions(config.options), takenAt: seconds(deps.clock), description }
      return { snapshot, volumes, isSuspended: await isSuspended(deps, vmid) }
    },
  })
  .step('volumes', {
    do: async ({ params, deps, done, log }) => {
      const vmid = asVmid(params.vmid)
      const { volumes } = done.check
      // The configuration knows no snapshot of this name, so one in a volume is a leftover.
      await dropEverywhere(deps, vmid, volumes, params.name)
      const heldMs = await takeMoment(deps, vmid, volumes, params.name)
      if (heldMs !== undefined) log(`the container was held for ${heldMs} ms`)
    },
    undo: async ({ params, deps, done }) => {
      const { check } = done
      if (!check) return
      const vmid = asVmid(params.vmid)
      await deps.guests.letGo(vmid, check)
      await dropEverywhere(deps, vmid, check.volumes, params.name)
    },
  })
  .step('config', {
    do: ({ params, deps, done }) => rememberSnapshot(deps, params, done.check.snapshot),
    undo: unrememberSnapshot,
  })

/** Whether a running container is one that somebody has suspended. */
export async function isSuspended({ guests }: Pick<DiskDeps, 'guests'>, vmid: Vmid): Promise<boolean> {
  return (await guests.isRunning(vmid)) && guests.isPaused(vmid)
}

/** The volumes of a container a snapshot is made of. @throws Fault in PVE's words when one of its mounts can have none */
export async function volumesToTake(storage: StorageService, options: Options): Promise<VolumeId[]> {
  const other = mountsOf(options).find((mount) => wishOf(mount).kind !== 'volume')
  if (other) {
    const remedy = `Mount '${other.name}' is a folder of the node: take it out of the container first.`
    throw noSnapshots(other.name, remedy)
  }
  const volumes = mountedVolumes(options).map(({ volid }) => volid)
  for (const volid of volumes) await storage.snapshots(volid)
  return volumes
}

/**
 * Takes a snapshot of every volume, all at one moment.
 * @returns how long a running container was held for that, in milliseconds; undefined when it does not run
 */
export async function takeMoment(
  { guests, storage }: DiskDeps,
  vmid: Vmid,
  volumes: readonly VolumeId[],
  tag: string,
): Promise<number | undefined> {
  const take = async () => {
    for (const volid of volumes) await (await storage.snapshots(volid)).take(tag)
  }
  if (await guests.isRunning(vmid)) return (await guests.whileHeld(vmid, take)).heldMs
  // Of one that ended by itself images may still be mounted.
  await guests.reap(vmid)
  await take()
  return undefined
}
