/**
 * Changes a configuration in ways that make or destroy volumes. Changes that do not are one write to the
 * store and need no task (`GuestService.applyChange`).
 *
 * New volumes are made first and volumes that go are set aside; then the configuration is written; only
 * after success are the latter erased. The lock keeps other tasks out, but not a change of, say, the name,
 * which needs none: taking back touches only what this task changed.
 */
import type { VolumeId } from '#base/ids.ts'
import { asVmid } from '#base/ids.ts'
import type { Random } from '#base/random.ts'
import type { ConfigChange, Options } from '#guests/config.ts'
import { digestOf, takeBack } from '#guests/config.ts'
import { planChange } from '#guests/qemu/change.ts'
import { completedChange } from '#guests/qemu/new-guest.ts'
import type { GuestService } from '#guests/service.ts'
import type { StorageService } from '#storage/service.ts'
import { operation } from '#tasks/operation.ts'
import { bringBackAll, eraseAll, freeNewVolumes, heldVolumes, makeVolumes, setAsideAll, volumesOf } from './volumes.ts'

export interface ConfigureGuest {
  readonly vmid: number
  readonly change: ConfigChange
  readonly force?: boolean | undefined
  readonly digest?: string | undefined
  readonly skipLock?: boolean | undefined
}

export interface ConfigureDeps {
  readonly guests: GuestService
  readonly storage: StorageService
  readonly random: Random
}

export const configureGuest = operation<ConfigureGuest, ConfigureDeps>('qmconfig', {
  id: ({ vmid }) => vmid,
  locks: ({ vmid }) => [`guest/${vmid}`],
})
  .step('plan', {
    do: async ({ params, deps }): Promise<Plan> => {
      const vmid = asVmid(params.vmid)
      if (params.skipLock !== true) await deps.guests.requireUnlocked(vmid)
      const config = await deps.guests.config(vmid)
      const { options, make, free } = planChange(vmid, config, params.change, params.force)
      const held = heldVolumes(config)
      return { before: config.options, options, make, free, held, volumes: await volumesOf(deps.storage, vmid) }
    },
  })
  .step('erasure', {
    do: () => {},
    // After success this is the destruction itself. After a failure nothing is set aside any more.
    undo: ({ deps, done, task }) => eraseAll(deps.storage, done.plan?.free ?? [], task.upid),
    always: true,
  })
  .step('volumes', {
    do: async ({ params, deps, done, log, progress, signal }): Promise<Options> => {
      const { options, make, held } = done.plan
      const context = { vmid: asVmid(params.vmid), storage: deps.storage, held, log, progress, signal }
      return completedChange({ ...options, ...(await makeVolumes(options, make, context)) }, deps.random)
    },
    undo: async ({ params, deps, done }) => {
      if (done.plan) await freeNewVolumes(deps, asVmid(params.vmid), done.plan.volumes)
    },
  })
  .step('discarded volumes', {
    do: ({ deps, done, task, log, warn }) => setAsideAll(deps.storage, done.plan.free, { upid: task.upid, log, warn }),
    undo: ({ deps, done, task }) => bringBackAll(deps.storage, done.plan?.free ?? [], task.upid),
  })
  .step('config', {
    do: async ({ params, deps, done }) => {
      const digest = params.digest ?? digestOf(done.plan.before)
      await deps.guests.writeConfig(asVmid(params.vmid), done.volumes, { digest })
    },
    undo: async ({ params, deps, done }) => {
      const { plan, volumes: written } = done
      if (plan && written)
        await deps.guests.changeConfig(asVmid(params.vmid), (now) => takeBack(now, plan.before, written))
    },
  })

/** What the change comes to, as the journal keeps it. */
type Plan = {
  readonly before: Options
  readonly options: Options
  readonly make: readonly string[]
  readonly free: readonly VolumeId[]
  readonly held: readonly VolumeId[]
  /** Disks the guest had before. */
  readonly volumes: readonly VolumeId[]
}
