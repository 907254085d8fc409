/**
 * Takes a guest back to a snapshot: its volumes, its configuration, and its memory if that was kept.
 *
 * A guest that runs is stopped first, as by pulling its plug: what it has in memory belongs to what is left behind. Until the
 * task has succeeded, what the volumes held is kept in a snapshot of the task's own, so everything but that memory can
 * be brought back.
 */
import { Fault } from '#base/fault.ts'
import { asVmid, type VolumeId } from '#base/ids.ts'
import type { Random } from '#base/random.ts'
import { isTemplate, type Snapshot, takeBack } from '#guests/config.ts'
import { nounOf } from '#guests/kind.ts'
import { operation, type Step } from '#tasks/operation.ts'
import { markOf } from '../storage/aside.ts'
import { aboutOneGuest } from './one-guest.ts'
import type { DiskDeps } from './resize.ts'
import { requireSnapshot } from './snapshot-config.ts'
import { dropEverywhere } from './snapshot-disks.ts'
import { containerSnapshots, machineSnapshots, type SnapshotKind } from './snapshot-kinds.ts'

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

/** With its memory it goes on where it was; else it is started if that is wished. */
const goingOn: Step<RollbackGuest, RollbackDeps, { readonly check: { readonly snapshot: Snapshot } }, void> = {
  do: async ({ params, deps, done, log, signal, task }) => {
    const { memory } = done.check.snapshot
    if (!memory && params.start !== true) return
    const how = memory ? { memory: { tag: params.name, ...memory } } : {}
    await deps.guests.start(asVmid(params.vmid), { startedBy: task.upid, log, signal, ...how })
    if (memory) log('the guest goes on from where it was')
  },
  undo: ({ params, deps, task }) => deps.guests.undoStart(asVmid(params.vmid), task.upid),
}

export const rollbackGuest = rollback('qmrollback', machineSnapshots)
export const rollbackContainer = rollback('vzrollback', containerSnapshots)

function rollback(operationName: string, { kind, volumesOf, after }: SnapshotKind) {
  const noun = nounOf[kind]
  return operation<RollbackGuest, RollbackDeps>(operationName, aboutOneGuest)
    .step('check', {
      do: async ({ params, deps }) => {
        const vmid = asVmid(params.vmid)
        await deps.guests.requireUnlocked(vmid)
        const config = await deps.guests.config(vmid, kind)
        const { options } = config
        if (isTemplate(options)) throw new Fault('conflict', `you can't rollback if ${noun} ${vmid} is a template`)
        const snapshot = requireSnapshot(config, params.name)
        const volumes = volumesOf(snapshot)
        await requireWhole(deps, volumes, params.name)
        if (snapshot.memory?.volume) await deps.storage.describe(snapshot.memory.volume)
        const next = after({ name: params.name, snapshot }, options, deps.random)
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
        if (check)
          await deps.guests.changeConfig(asVmid(params.vmid), (now) => takeBack(now, check.options, check.next))
      },
    })
    .step('start', goingOn)
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
