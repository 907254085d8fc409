/**
 * Destroys a stopped guest with its disks.
 *
 * The disks are set aside and the configuration is removed; only once the task has succeeded are the disks
 * erased. Until then everything can be taken back.
 */
import type { PathRights } from '#access/path-rights.ts'
import { Fault } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import type { BackupJobs } from '#cluster/backup-jobs.ts'
import { isProtected } from '#guests/config.ts'
import { type GuestKind, nounOf } from '#guests/kind.ts'
import { isOwned } from '#guests/config.ts'
import type { GuestService } from '#guests/service.ts'
import type { PoolService } from '#pools/service.ts'
import type { StorageService } from '#storage/service.ts'
import { operation } from '#tasks/operation.ts'
import { aboutOneGuest } from './one-guest.ts'
import { bringBackAll, eraseAll, heldVolumes, setAsideAll, volumesOf } from './volumes.ts'

export interface DestroyGuest {
  readonly vmid: number
  /** Also disks of the guest that its configuration does not name. */
  readonly destroyUnreferencedDisks?: boolean | undefined
  readonly skipLock?: boolean | undefined
  /** Also take it out of backup jobs that name it. */
  readonly purge?: boolean | undefined
}

export interface DestroyDeps {
  readonly guests: GuestService
  readonly storage: StorageService
  readonly pools: Pick<PoolService, 'poolOf' | 'put' | 'takeOut'>
  readonly backupJobs: Pick<BackupJobs, 'forgetGuest'>
  readonly rights: PathRights
}

export const destroyGuest = destroy('qmdestroy', 'qemu')
export const destroyContainer = destroy('vzdestroy', 'lxc')

function destroy(name: string, kind: GuestKind) {
  const noun = nounOf[kind]
  return (
    operation<DestroyGuest, DestroyDeps>(name, aboutOneGuest)
      .step('check', {
        do: async ({ params, deps }) => {
          const vmid = asVmid(params.vmid)
          const config = await deps.guests.config(vmid, kind)
          const { options, snapshots = {}, filling = null } = config
          if (params.skipLock !== true) await deps.guests.requireUsable(vmid)
          if (await deps.guests.isRunning(vmid)) {
            throw new Fault('conflict', `${noun} ${vmid} is running - destroy failed`, { remedy: 'Stop it first.' })
          }
          if (isProtected(options)) {
            throw new Fault('conflict', `can't remove ${noun} ${vmid} - protection mode enabled`, {
              remedy: 'Set protection to 0 first.',
            })
          }
          const named = heldVolumes(config).filter((volid) => isOwned(volid, vmid))
          const all = params.destroyUnreferencedDisks === true ? await volumesOf(deps.storage, vmid) : []
          const pool = (await deps.pools.poolOf(vmid)) ?? null
          const rights = await deps.rights.on(`/vms/${vmid}`)
          return { options, snapshots, filling, pool, rights, volumes: [...new Set([...named, ...all])] }
        },
      })
      .step('erasure', {
        do: () => {},
        // After success this is the deed itself. After a failure nothing is set aside any more.
        undo: ({ deps, done, task }) => eraseAll(deps.storage, done.check?.volumes ?? [], task.upid),
        always: true,
      })
      .step('volumes', {
        do: ({ deps, done, task, log, warn }) =>
          setAsideAll(deps.storage, done.check.volumes, { upid: task.upid, log, warn }),
        undo: ({ deps, done, task }) => bringBackAll(deps.storage, done.check?.volumes ?? [], task.upid),
      })
      // Both before the guest is gone: no right on it may pass on to the next guest of this id.
      .step('rights', {
        do: ({ params, deps }) => deps.rights.forget(`/vms/${params.vmid}`),
        undo: ({ deps, done }) => deps.rights.restore(done.check?.rights ?? []),
      })
      .step('pool', {
        do: ({ params, deps }) => deps.pools.takeOut(params.vmid),
        undo: async ({ params, deps, done }) => {
          const pool = done.check?.pool ?? undefined
          if (pool !== undefined) await deps.pools.put(params.vmid, pool)
        },
      })
      .step('config', {
        do: ({ params, deps }) => deps.guests.removeConfig(asVmid(params.vmid)),
        undo: async ({ params, deps, done }) => {
          if (done.check) {
            const { options, snapshots, filling } = done.check
            const more = { snapshots, kind, filling: filling ?? undefined }
            await deps.guests.restoreConfig(asVmid(params.vmid), options, more)
          }
        },
      })
      // Last, so nothing has to bring a guest back into jobs.
      .step('jobs', {
        do: ({ params, deps }) => (params.purge === true ? deps.backupJobs.forgetGuest(params.vmid) : undefined),
      })
  )
}
