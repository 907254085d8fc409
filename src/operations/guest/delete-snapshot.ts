/**
 * Removes a snapshot from the volumes of a guest and from its configuration.
 *
 * What is removed from one volume cannot be put back, so once that has begun this is not taken back but finished.
 */
import { messageOf } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { operation } from '#tasks/operation.ts'
import { aboutOneGuest } from './one-guest.ts'
import type { DiskDeps } from './resize.ts'
import { forgetSnapshot, requireSnapshot } from './snapshot-config.ts'
import { countOf, dropEverywhere } from './snapshot-disks.ts'
import { containerSnapshots, machineSnapshots, type SnapshotKind } from './snapshot-kinds.ts'
import { freeState } from './snapshot.ts'

export interface DeleteSnapshot {
  readonly vmid: number
  readonly name: string
  /** Forget it also when it cannot be removed from a disk. */
  readonly force?: boolean | undefined
}

export const deleteSnapshot = deletion('qmdelsnapshot', machineSnapshots)
export const deleteContainerSnapshot = deletion('vzdelsnapshot', containerSnapshots)

function deletion(operationName: string, { kind, volumesOf }: SnapshotKind) {
  return (
    operation<DeleteSnapshot, DiskDeps>(operationName, aboutOneGuest)
      .step('check', {
        do: async ({ params, deps }) => {
          const vmid = asVmid(params.vmid)
          await deps.guests.requireUnlocked(vmid)
          const snapshot = requireSnapshot(await deps.guests.config(vmid, kind), params.name)
          const volumes = volumesOf(snapshot)
          const state = snapshot.memory?.volume ?? null
          return { volumes, state, count: params.force === true ? 0 : await countOf(deps, volumes, params.name) }
        },
      })
      .step('disks', {
        do: async ({ params, deps, done, warn }) => {
          try {
            await dropEverywhere(deps, asVmid(params.vmid), done.check.volumes, params.name)
            await freeState(deps, done.check.state ?? undefined)
          } catch (fault) {
            if (params.force !== true) throw fault
            warn(`the snapshot stays in a disk: ${messageOf(fault)}`)
          }
        },
        undo: async ({ params, deps, done }) => {
          if (!done.check) return
          const { volumes, count, state } = done.check
          // Of a snapshot that is still whole nothing has happened yet.
          if (count > 0 && (await countOf(deps, volumes, params.name)) === count) return
          await dropEverywhere(deps, asVmid(params.vmid), volumes, params.name)
          await freeState(deps, state ?? undefined)
          await forgetSnapshot(deps, asVmid(params.vmid), params.name)
        },
      })
      // No undo: the one before finishes what was begun.
      .step('config', {
        do: ({ params, deps }) => forgetSnapshot(deps, asVmid(params.vmid), params.name),
      })
  )
}
