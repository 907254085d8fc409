/**
 * Takes a guest back to a snapshot: its disks, its configuration, and its memory if that was kept.
 *
 * A guest that runs is stopped first, as by pulling its plug: what it has in memory belongs to what is left behind. Until the
 * task has succeeded, what the disks held is kept in a snapshot of the task's own, so everything but that memory can
 * be brought back.
 */
import { Fault, missing } from '#base/fault.ts'
import { asVmid, type VolumeId } from '#base/ids.ts'
import type { Random } from '#base/random.ts'
import { isTemplate, type Options, type Snapshot, takeBack } from '#guests/config.ts'
import { keepUnused } from '#guests/qemu/change.ts'
import { volumesIn } from '#guests/qemu/drive.ts'
import { operation } from '#tasks/operation.ts'
import { markOf } from '../storage/aside.ts'
import { goneCloudInits } from './cloud-init-drive.ts'
import { aboutOneGuest } from './one-guest.ts'
import type { DiskDeps } from './resize.ts'
import { diskVolumes, dropEverywhere, volumesOfSnapshot } from './snapshot-disks.ts'

export interface RollbackGuest {
  readonly vmid: number
  readonly name: string
  /** Start it afterwards; with kept memory it goes on anyway. */
  readonly start?: boolean | undefined
}

export interface RollbackDeps extends DiskDeps {
  readonly random: Random
}

const tagOf = (upid: string) => `undo-${markOf(upid)}`

export const rollbackGuest = operation<RollbackGuest, RollbackDeps>('qmrollback', aboutOneGuest)
  .step('check', {
    do: async ({ params, deps }) => {
      const vmid = asVmid(params.vmid)
      await deps.guests.requireUnlocked(vmid)
      const { options, snapshots = {} } = await deps.guests.config(vmid)
      if (isTemplate(options)) throw new Fault('conflict', `you can't rollback if VM ${vmid} is a template`)
      const snapshot = snapshots[params.name]
      if (!snapshot) throw missing('snapshot', params.name)
      const volumes = volumesOfSnapshot(snapshot)
      await requireWhole(deps, volumes, params.name)
      if (snapshot.memory?.volume) await deps.storage.describe(snapshot.memory.volume)
      const next = optionsAfter(params.name, snapshot, options, deps.random)
      return { snapshot, volumes, options, next, wasRunning: await deps.guests.isRunning(vmid) }
    },
  })
  .step('stop', {
    do: async ({ params, deps, done, log }) => {
      const vmid = asVmid(params.vmid)
      if (done.check.wasRunning) {
        await deps.guests.stop(vmid)
        log('the guest is stopped')
      } else await deps.guests.reap(vmid)
    },
    undo: async ({ params, deps, done, log, task }) => {
      const vmid = asVmid(params.vmid)
      if (done.check?.wasRunning !== true || (await deps.guests.isRunning(vmid))) return
      await deps.guests.start(vmid, { startedBy: task.upid, log })
    },
  })
  .step('keep what is', {
    do: async ({ deps, done, task }) => {
      for (const volid of done.check.volumes) await (await deps.storage.snapshots(volid)).take(tagOf(task.upid))
    },
    undo: ({ params, deps, done, task }) =>
      dropEverywhere(deps, asVmid(params.vmid), done.check?.volumes ?? [], tagOf(task.upid)),
    always: true,
  })
  .step('disks', {
    do: async ({ params, deps, done, log }) => {
      for (const volid of done.check.volumes) {
        await (await deps.storage.snapshots(volid)).rollBack(params.name)
        log(`${volid} is as it was`)
      }
    },
    undo: async ({ deps, done, task }) => {
      for (const volid of done.check?.volumes ?? []) {
        const snapshots = await deps.storage.snapshots(volid)
        // Gone means: brought back already, by somebody who then died.
        if ((await snapshots.list()).includes(tagOf(task.upid))) await snapshots.rollBack(tagOf(task.upid))
      }
    },
  })
  .step('config', {
    do: ({ params, deps, done }) => deps.guests.changeConfig(asVmid(params.vmid), () => done.check.next),
    undo: async ({ params, deps, done }) => {
      const { check } = done
      if (check) await deps.guests.changeConfig(asVmid(params.vmid), (now) => takeBack(now, check.options, check.next))
    },
  })
  .step('start', {
    do: async ({ params, deps, done, log, signal, task }) => {
      const { memory } = done.check.snapshot
      if (!memory && params.start !== true) return
      const how = memory ? { memory: { tag: params.name, ...memory } } : {}
      await deps.guests.start(asVmid(params.vmid), { startedBy: task.upid, log, signal, ...how })
      if (memory) log('the guest goes on from where it was')
    },
    undo: ({ params, deps, task }) => deps.guests.undoStart(asVmid(params.vmid), task.upid),
  })

/** Disks the guest has got since then stay with it, unused. */
function optionsAfter(name: string, { options, memory }: Snapshot, now: Options, random: Random): Options {
  const next: Record<string, string> = { ...options, parent: name }
  if (now.description !== undefined) next.description = now.description
  for (const { name: key, volid } of volumesIn(now)) {
    if (key.startsWith('unused') && volumesIn(next).every((one) => one.volid !== volid)) next[key] = volid
  }
  for (const { volid } of diskVolumes(now)) keepUnused(next, volid)
  for (const volid of goneCloudInits(now, next)) keepUnused(next, volid)
  // Software in the guest is told that time went back; with its memory it goes back too.
  if (!memory && next.vmgenid !== undefined && next.vmgenid !== '0') next.vmgenid = random.uuid()
  return next
}

/** Looked at before anything is touched. */
async function requireWhole({ storage }: DiskDeps, volumes: readonly VolumeId[], name: string): Promise<void> {
  for (const volid of volumes) {
    if ((await (await storage.snapshots(volid)).list()).includes(name)) continue
    throw new Fault('damaged', `volume '${volid}' does not hold snapshot '${name}'`, {
      remedy: 'The snapshot is not whole; it can only be deleted.',
    })
  }
}
