/**
 * Takes a snapshot of a guest: of all its disks at one moment, of its configuration, and if wanted of its memory.
 *
 * The content is kept inside the disks, under the snapshot's name; the rest with the guest's configuration. A snapshot
 * is there once the configuration says so; what is in the disks without that is removed.
 */
import { open } from 'node:fs/promises'
import { MiB } from '#base/bytes.ts'
import { type Clock, seconds } from '#base/clock.ts'
import { Fault, invalid, isFault } from '#base/fault.ts'
import { asVmid, asVolumeId, splitVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import type { GuestConfig, Options, Snapshot } from '#guests/config.ts'
import { agentOf } from '#guests/qemu/agent.ts'
import { drivesOf, wishOf } from '#guests/qemu/drive.ts'
import { memoryMiBOf } from '#guests/qemu/memory.ts'
import { isOnBus } from '#guests/qemu/state-bus.ts'
import { foldersOf } from '#guests/qemu/virtiofs.ts'
import { disksWithin, saveDisks, saveMemory } from '#guests/qemu/snapshot.ts'
import { noSnapshots } from '#storage/links.ts'
import { operation } from '#tasks/operation.ts'
import { whileFrozen } from '../backup/freeze.ts'
import { leaveGuest } from '../backup/guest-source.ts'
import { holdingProcessors, markFrozen, unmarkFrozen } from '../backup/point-in-time.ts'
import { aboutOneGuest } from './one-guest.ts'
import type { DiskDeps } from './resize.ts'
import { keptOptions, rememberSnapshot, requireNewSnapshot, unrememberSnapshot } from './snapshot-config.ts'
import { diskVolumes, dropEverywhere, openAmong, takersOf, volumesOfSnapshot } from './snapshot-disks.ts'

export interface SnapshotGuest {
  readonly vmid: number
  readonly name: string
  readonly description?: string | undefined
  /** Keep the memory too; means nothing for a stopped guest. */
  readonly memory?: boolean | undefined
}

export interface SnapshotDeps extends DiskDeps {
  readonly clock: Clock
}

export const snapshotGuest = operation<SnapshotGuest, SnapshotDeps>('qmsnapshot', aboutOneGuest)
  .step('check', {
    do: async ({ params, deps }) => {
      const vmid = asVmid(params.vmid)
      await deps.guests.requireUnlocked(vmid)
      const config = await deps.guests.config(vmid)
      requireNewSnapshot(vmid, config, params.name)
      const snapshot = await snapshotOf(vmid, config, params, deps)
      const volumes = volumesOfSnapshot(snapshot)
      for (const volid of volumes) await deps.storage.snapshots(volid)
      const state = snapshot.memory && (await stateVolumeOf(vmid, snapshot, params.name, deps))
      if (snapshot.memory) await requireRoomForMemory(deps, snapshot.memory.options, state)
      return { snapshot, volumes, state: state ?? null }
    },
  })
  .step('state', {
    do: async ({ params, deps, done }): Promise<Snapshot> => {
      const { snapshot, state } = done.check
      const { memory } = snapshot
      if (!memory || state === null) return snapshot
      const { storage, name } = splitVolumeId(state)
      // The state goes where the content of a disk would end, so the disk itself is next to nothing.
      const how = { sizeBytes: MiB, neededBytes: memoryMiBOf(memory.options) * MiB, format: 'qcow2' as const }
      const volume = await deps.storage.allocate({ storage, vmid: asVmid(params.vmid), name, ...how })
      return { ...snapshot, memory: { ...memory, volume } }
    },
    // The check saw that there was none.
    undo: ({ deps, done }) => (done.check?.state ? freeState(deps, done.check.state) : undefined),
  })
  .step('disks', {
    do: async ({ params, deps, done, log, signal }) => {
      const vmid = asVmid(params.vmid)
      const { volumes } = done.check
      const { memory } = done.state
      const config = await deps.guests.config(vmid)
      // The configuration knows no snapshot of this name, so one in a disk is a leftover.
      await dropEverywhere(deps, vmid, volumes, params.name)
      const { open, closed } = openAmong(config, volumes)
      const take = async (volid: VolumeId) => (await deps.storage.snapshots(volid)).take(params.name)
      for (const volid of closed) await take(volid)
      if (open.length === 0 && !memory?.volume) return
      const { byGuest, byStorage } = await takersOf(deps, open)
      await using monitor = await deps.guests.qmp(vmid, 'long', signal)
      const together = async (save: () => Promise<void>) => {
        if (byStorage.length === 0) return save()
        // While the guest is halted nothing should be left to write.
        for (const { volid } of byStorage) await writeOut((await deps.storage.location(volid)).path)
        const { heldMs } = await holdingProcessors(monitor, async () => {
          await save()
          for (const { volid } of byStorage) await take(volid)
        })
        log(`the guest was halted for ${heldMs} ms`)
      }
      if (memory) {
        log(`writing ${memoryMiBOf(memory.options)} MiB of memory, the guest halts meanwhile`)
        const place = { storage: deps.storage, uid: deps.guests.uidOf(vmid) }
        const kept = { tag: params.name, volume: memory.volume }
        return await together(() => saveMemory(monitor, memory.options, kept, place))
      }
      const { isEnabled, freezes } = agentOf(config.running ?? {})
      const isWanted = isEnabled && freezes
      if (isWanted) await markFrozen(monitor)
      const drives = byGuest.map(({ drive }) => drive)
      const { verdict } = await whileFrozen({ guests: deps.guests, vmid, isWanted }, () =>
        together(() => saveDisks(monitor, drives, params.name)),
      )
      if (isWanted) await unmarkFrozen(monitor)
      if (verdict.state === 'frozen') log(`file systems were frozen for ${verdict.durationMs} ms`)
      else log(`file systems were not frozen (${verdict.reason})`)
    },
    undo: async ({ params, deps, done }) => {
      if (!done.check) return
      const vmid = asVmid(params.vmid)
      // Thaws and resumes what a process that died left still.
      await leaveGuest(deps, vmid)
      await dropEverywhere(deps, vmid, done.check.volumes, params.name)
    },
  })
  .step('config', {
    do: ({ params, deps, done }) => rememberSnapshot(deps, params, done.state),
    undo: unrememberSnapshot,
  })

async function snapshotOf(
  vmid: Vmid,
  { options, running }: GuestConfig,
  { description = '', memory }: SnapshotGuest,
  { guests, clock }: SnapshotDeps,
): Promise<Snapshot> {
  requireOnlyVolumes({ ...options, ...running })
  const status = memory === true && running ? (await guests.status(vmid)).state : undefined
  if (status?.state === 'running' && running && !options.vmstatestorage && diskVolumes(running).length === 0) {
    throw noSnapshots('A guest without disks')
  }
  if (status?.state === 'running' && running) await requireMovable(vmid, running, guests)
  return {
    options: keptOptions(options),
    takenAt: seconds(clock),
    description,
    ...(status?.state === 'running' && running ? { memory: { options: running, machine: status.machine } } : {}),
  }
}

/** What the page cache holds of a file goes to disk. */
async function writeOut(path: string): Promise<void> {
  await using file = await open(path, 'r')
  await file.datasync()
}

/** What is held outside of QEMU is not in its memory, and the memory cannot be loaded without it. */
async function requireMovable(vmid: Vmid, running: Options, guests: DiskDeps['guests']): Promise<void> {
  const [folder] = foldersOf(running)
  if (folder) {
    throw new Fault('conflict', `the memory of VM ${vmid} cannot be kept: ${folder.name} is a folder of the node`, {
      remedy: 'Take the snapshot without memory (vmstate=0), or stop the guest first.',
    })
  }
  await using monitor = await guests.qmp(vmid)
  if (!(await isOnBus(monitor))) return
  throw new Fault('conflict', `the memory of VM ${vmid} cannot be kept: helpers of the node hold a part of its state`, {
    remedy: 'End that first: POST dbus-vmstate with action=stop.',
  })
}

/** A host's own file or device has no snapshots. */
function requireOnlyVolumes(options: Options): void {
  const other = drivesOf(options).find((drive) => !drive.isCdrom && wishOf(drive).kind === 'path')
  if (other) throw noSnapshots(`Drive ${other.name}`)
}

/** Memory goes into the first disk that can hold it, unless it has a volume of its own. */
async function requireRoomForMemory({ storage }: DiskDeps, options: Options, state?: VolumeId): Promise<void> {
  const [within] = disksWithin(options)
  const place = state ?? diskVolumes(options).find(({ drive }) => drive === within)?.volid
  if (place === undefined) return
  await storage.requireSpace(splitVolumeId(place).storage, memoryMiBOf(options) * MiB, 'the memory of the guest')
}

/**
 * The volume the memory is to go to, which is not there yet; none where the configuration names no storage and a disk
 * can hold it.
 * @throws Fault `invalid` when that storage can hold no such thing, `conflict` when the volume is there
 */
async function stateVolumeOf(
  vmid: Vmid,
  { options, memory }: Snapshot,
  snapshot: string,
  { storage }: DiskDeps,
): Promise<VolumeId | undefined> {
  const running = memory?.options ?? {}
  const [first] = disksWithin(running).length === 0 ? diskVolumes(running) : []
  const name = options.vmstatestorage ?? (first && splitVolumeId(first.volid).storage)
  if (name === undefined) return undefined
  const config = await storage.get(name)
  await storage.requireContent(name, 'images')
  if (!storage.featuresOf(config).formats.includes('qcow2')) {
    throw invalid({ vmstatestorage: `storage '${name}' cannot keep memory: it has no format qcow2` })
  }
  const volume = asVolumeId(`${name}:${vmid}/vm-${vmid}-state-${snapshot}.qcow2`)
  if (await isThere(storage, volume)) throw new Fault('conflict', `volume '${volume}' exists already`)
  return volume
}

async function isThere(storage: DiskDeps['storage'], volume: VolumeId): Promise<boolean> {
  try {
    await storage.describe(volume)
    return true
  } catch (fault) {
    if (!isFault(fault, 'missing')) throw fault
    return false
  }
}

/** Frees the volume memory was kept in. Harmless when it is gone. */
export async function freeState({ storage }: Pick<DiskDeps, 'storage'>, volume: VolumeId | undefined): Promise<void> {
  if (volume !== undefined && (await isThere(storage, volume))) await storage.free(volume)
}
