/**
 * Moves a running guest into a fresh QEMU process on the same node, without a stop.
 *
 * Until the guest goes on in the new process a failure leaves it where it was; from then on nothing is taken back, only
 * finished.
 */
import { humanSize } from '#base/bytes.ts'
import { asVmid } from '#base/ids.ts'
import type { GuestService } from '#guests/service.ts'
import { operation } from '#tasks/operation.ts'
import { aboutOneGuest } from './one-guest.ts'

export interface RenewGuest {
  readonly vmid: number
}

export interface RenewDeps {
  readonly guests: GuestService
}

export const renewGuest = operation<RenewGuest, RenewDeps>('qmrenew', aboutOneGuest)
  .step('check', {
    do: async ({ params, deps }) => {
      const vmid = asVmid(params.vmid)
      await deps.guests.requireUnlocked(vmid)
      await deps.guests.renewals.requireMovable(vmid)
    },
  })
  .step('process', {
    do: async ({ params, deps, log, signal }) => ({
      ...(await deps.guests.renewals.begin(asVmid(params.vmid), { log, signal })),
    }),
    undo: ({ params, deps }) => deps.guests.renewals.settle(asVmid(params.vmid)),
  })
  // No undo: the one above says where the guest is, and ends the rest.
  .step('move', {
    do: async ({ params, deps, done, log, progress, signal }) => {
      const { downtimeMs, sent } = await deps.guests.renewals.move(asVmid(params.vmid), done.process, {
        log,
        signal,
        onProgress: ({ sentBytes, remainingBytes, totalBytes }) => {
          progress('send memory', 1 - remainingBytes / Math.max(1, totalBytes), sentBytes)
        },
      })
      if (sent) log(`sent ${humanSize(sent.sentBytes)} of memory and devices in ${sent.passes} passes`)
      log(`the guest goes on as process ${done.process.pid}; it stood still for ${downtimeMs} ms`)
      return { downtimeMs }
    },
  })
