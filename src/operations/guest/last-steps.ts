/** How the making of a guest ends, whatever it is made from and of: it joins its pool, and is started. */
import { Fault, messageOf } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import type { GuestService } from '#guests/service.ts'
import type { PoolService } from '#pools/service.ts'
import type { Step } from '#tasks/operation.ts'

interface WithPool {
  readonly pool?: string | undefined
}

/** @param idOf the guest that was made */
export function intoPool<P extends WithPool>(
  idOf: (params: P) => number,
): Step<P, { readonly pools: Pick<PoolService, 'put' | 'takeOut'> }, object, void> {
  return {
    do: ({ params, deps }) => (params.pool === undefined ? undefined : deps.pools.put(idOf(params), params.pool)),
    undo: async ({ params, deps }) => {
      if (params.pool !== undefined) await deps.pools.takeOut(idOf(params))
    },
  }
}

interface ToStart {
  readonly vmid: number
  readonly start?: boolean | undefined
}

/** The guest exists and is whole; that it does not start is for its owner to mend, and fails nothing. */
export const startWhenMade: Step<ToStart, { readonly guests: GuestService }, object, void> = {
  do: async ({ params, deps, log, warn, signal, task }) => {
    if (params.start !== true) return
    try {
      await deps.guests.start(asVmid(params.vmid), { startedBy: task.upid, log, signal })
    } catch (fault) {
      if (signal.aborted) throw fault
      warn(`start failed: ${messageOf(fault)}${fault instanceof Fault && fault.remedy ? `. ${fault.remedy}` : ''}`)
    }
  },
  undo: ({ params, deps, task }) => deps.guests.undoStart(asVmid(params.vmid), task.upid),
}
