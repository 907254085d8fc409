/**
 * Changes a container's configuration in ways that make or destroy volumes, or that a running container takes part in.
 * The steps are those of virtual machines (`configure.ts`), and so is the reason for their order.
 */
import { Fault } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import type { Random } from '#base/random.ts'
import type { Options } from '#guests/config.ts'
import { digestOf } from '#guests/config.ts'
import { completed, planChange } from '#guests/lxc/change.ts'
import { liveNames } from '#guests/lxc/live.ts'
import type { GuestService } from '#guests/service.ts'
import type { Host } from '#host/host.ts'
import type { StorageService } from '#storage/service.ts'
import { operation } from '#tasks/operation.ts'
import type { ConfigureGuest } from './configure.ts'
import { type ChangeFacts, erasure, followLive, takeBackChange } from './change-steps.ts'
import { makeMounts } from './container-volumes.ts'
import { aboutOneGuest } from './one-guest.ts'
import { bringBackAll, freeNewVolumes, heldVolumes, setAsideAll, volumesOf } from './volumes.ts'

export interface ConfigureContainerDeps {
  readonly guests: GuestService
  readonly storage: StorageService
  readonly host: Host
  readonly random: Random
}

export const configureContainer = operation<ConfigureGuest, ConfigureContainerDeps>('vzconfig', aboutOneGuest)
  .step('plan', {
    do: async ({ params, deps }): Promise<ChangeFacts> => {
      const vmid = asVmid(params.vmid)
      if (params.skipLock !== true) await deps.guests.requireUnlocked(vmid)
      const config = await deps.guests.config(vmid, 'lxc')
      const { options, make, free } = planChange(vmid, config, params.change, params.force)
      const { options: before, running } = config
      const isLive = running !== undefined && liveNames(running, options).length > 0
      return { before, options, make, free, isLive, volumes: await volumesOf(deps.storage, vmid) }
    },
  })
  .step('erasure', erasure)
  .step('volumes', {
    do: async ({ params, deps, done, log }): Promise<Options> => {
      const { options, make } = done.plan
      const context = { vmid: asVmid(params.vmid), storage: deps.storage, host: deps.host, log }
      return completed({ ...options, ...(await makeMounts(options, make, context)) }, deps.random)
    },
    undo: async ({ params, deps, done }) => {
      if (done.plan) await freeNewVolumes(deps, asVmid(params.vmid), done.plan.volumes)
    },
  })
  .step('config', {
    do: async ({ params, deps, done }) => {
      const digest = params.digest ?? digestOf(done.plan.before)
      await deps.guests.writeConfig(asVmid(params.vmid), done.volumes, { digest })
    },
    undo: takeBackChange,
  })
  .step('live', followLive)
  .step('discarded volumes', {
    do: async ({ params, deps, done, task, log, warn }) => {
      const { free } = done.plan
      const held = heldVolumes(await deps.guests.config(asVmid(params.vmid), 'lxc'))
      const used = free.find((volid) => held.includes(volid))
      if (used !== undefined) {
        throw new Fault('conflict', `volume '${used}' is still in use`, { remedy: 'Stop the container first.' })
      }
      await setAsideAll(deps.storage, free, { upid: task.upid, log, warn })
    },
    undo: ({ deps, done, task }) => bringBackAll(deps.storage, done.plan?.free ?? [], task.upid),
  })
