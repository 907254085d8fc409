/** Makes a virtual machine: takes its id, makes its disks, writes its configuration, starts it if asked. */
import type { Clock } from '#base/clock.ts'
import { asVmid } from '#base/ids.ts'
import type { Random } from '#base/random.ts'
import type { Options } from '#guests/config.ts'
import { driveNames } from '#guests/qemu/drive.ts'
import { completed, qemuVersion, requireOptions } from '#guests/qemu/new-guest.ts'
import type { GuestService } from '#guests/service.ts'
import type { Host } from '#host/host.ts'
import type { PoolService } from '#pools/service.ts'
import type { StorageService } from '#storage/service.ts'
import { operation } from '#tasks/operation.ts'
import { intoPool, startWhenMade } from './last-steps.ts'
import { sayMissingBridges } from './missing-bridges.ts'
import { aboutOneGuest } from './one-guest.ts'
import { freeNewVolumes, makeVolumes, volumesOf } from './volumes.ts'

export interface CreateGuest {
  readonly vmid: number
  /** As given by the client; drives may ask for new volumes. */
  readonly options: Options
  /** Pool to put it in. */
  readonly pool?: string | undefined
  readonly start?: boolean | undefined
}

export interface CreateDeps {
  readonly guests: GuestService
  readonly storage: StorageService
  readonly host: Host
  readonly clock: Clock
  readonly random: Random
  readonly pools: Pick<PoolService, 'put' | 'takeOut'>
}

export const createGuest = operation<CreateGuest, CreateDeps>('qmcreate', aboutOneGuest)
  .step('reservation', {
    do: async ({ params, deps, task }) => {
      const vmid = asVmid(params.vmid)
      requireOptions(params.options)
      await deps.guests.reserve(vmid, task.upid)
      // Disks an earlier guest of this id left are not this task's to remove.
      return volumesOf(deps.storage, vmid)
    },
    undo: ({ params, deps, task }) => deps.guests.release(asVmid(params.vmid), task.upid),
  })
  .step('volumes', {
    do: ({ params, deps, log, progress, signal }) => {
      const options = requireOptions(params.options)
      const context = { vmid: asVmid(params.vmid), storage: deps.storage, log, progress, signal }
      return makeVolumes(options, driveNames(options), context)
    },
    undo: async ({ params, deps, done, task }) => {
      const vmid = asVmid(params.vmid)
      if (!(await deps.guests.isMadeBy(vmid, task.upid))) return
      await deps.guests.unwrite(vmid, task.upid)
      await freeNewVolumes(deps, vmid, done.reservation ?? [])
    },
  })
  // No undo: giving back the reservation takes the configuration with it.
  .step('config', {
    do: async ({ params, deps, done, log, task }) => {
      const provenance = { random: deps.random, clock: deps.clock, qemuVersion: await qemuVersion(deps.host) }
      const options = completed({ ...requireOptions(params.options), ...done.volumes }, provenance)
      await deps.guests.writeConfig(asVmid(params.vmid), options, { owner: task.upid })
      await sayMissingBridges(deps.guests, options, log)
    },
  })
  .step(
    'pool',
    intoPool(({ vmid }) => vmid),
  )
  .step('start', startWhenMade)
