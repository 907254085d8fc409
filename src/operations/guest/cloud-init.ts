/**
 * Writes a guest's cloud-init drive anew from what is configured now, and puts it into the guest if that runs.
 *
 * Taken back, a running guest has a drive again that tells it what it was told before. Of a stopped guest there is
 * nothing to take back: its drive is written at every start.
 */
import { asVmid } from '#base/ids.ts'
import type { GuestService } from '#guests/service.ts'
import { operation } from '#tasks/operation.ts'
import { aboutOneGuest } from './one-guest.ts'

export interface UpdateCloudInit {
  readonly vmid: number
}

export const updateCloudInit = operation<UpdateCloudInit, { readonly guests: GuestService }>(
  'qmcloudinit',
  aboutOneGuest,
)
  .step('check', {
    do: async ({ params, deps }) => {
      const vmid = asVmid(params.vmid)
      await deps.guests.requireUnlocked(vmid)
      await deps.guests.requireCloudInit(vmid)
      return { told: (await deps.guests.config(vmid)).running ?? null }
    },
  })
  .step('drive', {
    do: async ({ params, deps, log }) => {
      const vmid = asVmid(params.vmid)
      await deps.guests.updateCloudInit(vmid)
      log((await deps.guests.isRunning(vmid)) ? 'written, and put into the guest' : 'written')
    },
    undo: async ({ params, deps, done }) => {
      const vmid = asVmid(params.vmid)
      const told = done.check?.told
      if (told && (await deps.guests.isRunning(vmid))) await deps.guests.updateCloudInit(vmid, told)
    },
  })
