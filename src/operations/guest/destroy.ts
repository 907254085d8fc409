/**
 * Destroys a stopped virtual machine with its disks.
 *
 * The disks are set aside and the configuration is removed; only once the task has succeeded are the disks
 * erased. Until then everything can be taken back.
 */
import { Fault } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { isProtected } from '#guests/config.ts'
import { isOwned } from '#guests/qemu/change.ts'
import { volumesIn } from '#guests/qemu/drive.ts'
import type { GuestService } from '#guests/service.ts'
import type { StorageService } from '#storage/service.ts'
import { operation } from '#tasks/operation.ts'
import { bringBackAll, eraseAll, setAsideAll, volumesOf } from './volumes.ts'

export interface DestroyGuest {
  readonly vmid: number
  /** Also disks of the guest that its configuration does not name. */
  readonly destroyUnreferencedDisks?: boolean | undefined
  readonly skipLock?: boolean | undefined
}

export interface DestroyDeps {
  readonly guests: GuestService
  readonly storage: StorageService
}

export const destroyGuest = operation<DestroyGuest, DestroyDeps>('qmdestroy', {
  id: ({ vmid }) => vmid,
  locks: ({ vmid }) => [`guest/${vmid}`],
})
  .step('check', {
    do: async ({ params, deps }) => {
      const vmid = asVmid(params.vmid)
      const { options } = await deps.guests.config(vmid)
      if (params.skipLock !== true) await deps.guests.requireUnlocked(vmid)
      if (await deps.guests.isRunning(vmid)) {
        throw new Fault('conflict', `VM ${vmid} is running - destroy failed`, { remedy: 'Stop it first.' })
      }
      if (isProtected(options)) {
        throw new Fault('conflict', `can't remove VM ${vmid} - protection mode enabled`, {
          remedy: 'Set protection to 0 first.',
        })
      }
      const named = volumesIn(options).flatMap(({ volid }) => (isOwned(volid, vmid) ? [volid] : []))
      const all = params.destroyUnreferencedDisks === true ? await volumesOf(deps.storage, vmid) : []
      return { options, volumes: [...new Set([...named, ...all])] }
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
  .step('config', {
    do: ({ params, deps }) => deps.guests.removeConfig(asVmid(params.vmid)),
    undo: async ({ params, deps, done }) => {
      if (done.check) await deps.guests.restoreConfig(asVmid(params.vmid), done.check.options)
    },
  })
