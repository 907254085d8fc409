/** Starts a guest. */
import { asVmid } from '#base/ids.ts'
import type { GuestService } from '#guests/service.ts'
import { operation } from '#tasks/operation.ts'
import { aboutOneGuest } from './one-guest.ts'

export interface StartGuest {
  readonly vmid: number
  readonly skipLock?: boolean | undefined
  /** Seconds until it must have started. */
  readonly timeout?: number | undefined
}

export interface PowerDeps {
  readonly guests: GuestService
}

export const startGuest = start('qmstart')
export const startContainer = start('vzstart')

function start(name: string) {
  return operation<StartGuest, PowerDeps>(name, aboutOneGuest).step('start', {
    do: async ({ params, deps, log, signal, task }) => {
      const vmid = asVmid(params.vmid)
      if (params.skipLock !== true) await deps.guests.requireUsable(vmid)
      const limit = params.timeout === undefined || params.timeout === 0 ? {} : { timeoutMs: params.timeout * 1000 }
      await deps.guests.start(vmid, { startedBy: task.upid, log, signal, ...limit })
    },
    undo: ({ params, deps, task }) => deps.guests.undoStart(asVmid(params.vmid), task.upid),
  })
}
