/** Asks a guest to shut down, and, for a reboot, starts it again. */
import { systemClock, waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { asVmid, type Vmid } from '#base/ids.ts'
import { operation, type TaskFacts } from '#tasks/operation.ts'
import { aboutOneGuest } from './one-guest.ts'
import type { PowerDeps } from './start.ts'

export interface ShutdownGuest {
  readonly vmid: number
  /** Seconds the guest may take. */
  readonly timeout?: number | undefined
  /** Pull the plug when it takes longer. */
  readonly forceStop?: boolean | undefined
  readonly skipLock?: boolean | undefined
}

const defaultTimeoutSeconds = 60

/** Milliseconds a guest that was told to go down when the task began may still take. */
function patienceOf(timeoutSeconds = defaultTimeoutSeconds, { startTime }: TaskFacts): number {
  const tookMs = systemClock.now() - startTime * 1000
  return Math.min(timeoutSeconds * 1000, Math.max(0, timeoutSeconds * 1000 - tookMs))
}

async function goesDown({ guests }: PowerDeps, vmid: Vmid, timeoutMs: number): Promise<boolean> {
  try {
    await waitFor(async () => !(await guests.isRunning(vmid)), { what: `end of guest ${vmid}`, timeoutMs, everyMs: 50 })
    return true
  } catch (fault) {
    if (isFault(fault, 'timeout')) return false
    throw fault
  }
}

const limitOf = (timeout: number | undefined) => (timeout === undefined ? {} : { timeoutMs: timeout * 1000 })

const shutdown = (name: string) =>
  operation<ShutdownGuest, PowerDeps>(name, aboutOneGuest).step('shutdown', {
    do: async ({ params, deps, log, signal }) => {
      const vmid = asVmid(params.vmid)
      if (params.skipLock !== true) await deps.guests.requireUsable(vmid)
      const forceStop = params.forceStop ?? false
      await deps.guests.shutdown(vmid, { ...limitOf(params.timeout), forceStop, log, signal })
    },
  })

export const shutdownGuest = shutdown('qmshutdown')
export const shutdownContainer = shutdown('vzshutdown')

const reboot = (name: string) =>
  operation<Omit<ShutdownGuest, 'forceStop'>, PowerDeps>(name, aboutOneGuest)
    .step('look', {
      do: async ({ params, deps }) => {
        const vmid = asVmid(params.vmid)
        if (params.skipLock !== true) await deps.guests.requireUsable(vmid)
        return deps.guests.isRunning(vmid)
      },
    })
    .step('shutdown', {
      do: ({ params, deps, log, signal }) =>
        deps.guests.shutdown(asVmid(params.vmid), { ...limitOf(params.timeout), log, signal }),
      // A guest that was running must not be left stopped because something failed in between. One that was
      // told to go down may still be on its way; nobody can tell that from one that was not told.
      undo: async ({ params, deps, done, log, task }) => {
        const vmid = asVmid(params.vmid)
        if (done.look !== true || (await deps.guests.startedBy(vmid)) === task.upid) return
        if (!(await goesDown(deps, vmid, patienceOf(params.timeout, task)))) return
        await deps.guests.start(vmid, { startedBy: task.upid, log })
      },
    })
    // No undo: that would stop the guest only for the undo above to start it.
    .step('start', {
      do: ({ params, deps, log, signal, task }) =>
        deps.guests.start(asVmid(params.vmid), { startedBy: task.upid, log, signal }),
    })

export const rebootGuest = reboot('qmreboot')
export const rebootContainer = reboot('vzreboot')
