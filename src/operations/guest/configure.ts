/**
 * Changes a configuration in ways that make or destroy volumes, or that a running guest takes part in. Changes that
 * do neither are one write to the store and need no task (`GuestService.applyChange`).
 *
 * New volumes are made first; then the configuration is written, and the running guest follows as far as it can; then
 * volumes that go are set aside, and only after success erased. The lock keeps other tasks out, but not a change of, say, the name,
 * which needs none: taking back touches only what this task changed.
 */
import { Fault } from '#base/fault.ts'
import type { VolumeId } from '#base/ids.ts'
import { asVmid } from '#base/ids.ts'
import type { Random } from '#base/random.ts'
import type { Errors } from '#base/schema/check.ts'
import type { ConfigChange, Options } from '#guests/config.ts'
import { digestOf } from '#guests/config.ts'
import { isCloudInit } from '#guests/qemu/drive.ts'
import { planChange } from '#guests/qemu/change.ts'
import { planLive } from '#guests/qemu/live-plan.ts'
import { completedChange } from '#guests/qemu/new-guest.ts'
import type { GuestService } from '#guests/service.ts'
import type { StorageService } from '#storage/service.ts'
import { operation } from '#tasks/operation.ts'
import { type ChangeFacts, erasure, followLive, takeBackChange } from './change-steps.ts'
import { sayMissingBridges } from './missing-bridges.ts'
import { aboutOneGuest } from './one-guest.ts'
import { bringBackAll, freeNewVolumes, heldVolumes, makeVolumes, setAsideAll, volumesOf } from './volumes.ts'

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

export const configureGuest = operation<ConfigureGuest, ConfigureDeps>('qmconfig', aboutOneGuest)
  .step('plan', {
    do: async ({ params, deps }): Promise<Plan> => {
      const vmid = asVmid(params.vmid)
      if (params.skipLock !== true) await deps.guests.requireUnlocked(vmid)
      const config = await deps.guests.config(vmid)
      const { options, make, free } = planChange(vmid, config, params.change, params.force)
      const held = heldVolumes(config)
      const { options: before, running } = config
      // Which act there is for a drive does not depend on the volume it will have.
      const isLive = running !== undefined && planLive(running, options).length > 0
      return { before, options, make, free, held, isLive, volumes: await volumesOf(deps.storage, vmid) }
    },
  })
  .step('erasure', erasure)
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
  .step('config', {
    do: async ({ params, deps, done, log }) => {
      const digest = params.digest ?? digestOf(done.plan.before)
      await deps.guests.writeConfig(asVmid(params.vmid), done.volumes, { digest })
      const given = Object.entries(done.volumes).filter(([name]) => params.change.set[name] !== undefined)
      await sayMissingBridges(deps.guests, Object.fromEntries(given), log)
    },
    undo: takeBackChange,
  })
  .step('live', followLive)
  // After the guest has let go of them.
  .step('discarded volumes', {
    do: async ({ params, deps, done, task, log, warn }) => {
      const { free } = done.plan
      const held = heldVolumes(await deps.guests.config(asVmid(params.vmid)))
      // A guest that runs keeps the cloud-init drive it has open, and needs nothing of it once it is up.
      const [used] = free.filter((volid) => held.includes(volid) && !isCloudInit(volid))
      if (used !== undefined) throw stillInUse(used, done.live)
      await setAsideAll(deps.storage, free, { upid: task.upid, log, warn })
    },
    undo: ({ deps, done, task }) => bringBackAll(deps.storage, done.plan?.free ?? [], task.upid),
  })

function stillInUse(volid: VolumeId, reasons: Errors): Fault {
  const why = Object.values(reasons)[0] ?? 'the running guest has it open'
  return new Fault('conflict', `volume '${volid}' is still in use: ${why}`, { remedy: 'Stop the guest first.' })
}

type Plan = ChangeFacts & { readonly held: readonly VolumeId[] }
