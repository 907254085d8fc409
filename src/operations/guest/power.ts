/** The short acts on a running guest: stop, reset, pause, go on. */
import { asVmid } from '#base/ids.ts'
import type { Vmid } from '#base/ids.ts'
import type { GuestService } from '#guests/service.ts'
import type { Operation } from '#tasks/operation.ts'
import { operation } from '#tasks/operation.ts'
import { aboutOneGuest } from './one-guest.ts'
import type { PowerDeps } from './start.ts'

export interface PowerAct {
  readonly vmid: number
  readonly skipLock?: boolean | undefined
}

/**
 * One command that nothing can take back: a plug that was pulled stays pulled. There is no half of it
 * either, so a task that dies on the way has done it or not.
 */
function command(
  name: string,
  act: (guests: GuestService, vmid: Vmid) => Promise<void>,
): Operation<PowerAct, PowerDeps> {
  return operation<PowerAct, PowerDeps>(name, aboutOneGuest).step(name.slice(2), {
    do: async ({ params, deps }) => {
      const vmid = asVmid(params.vmid)
      if (params.skipLock !== true) await deps.guests.requireUsable(vmid)
      await act(deps.guests, vmid)
    },
  })
}

async function stop(guests: GuestService, vmid: Vmid): Promise<void> {
  // Stopping what is stopped is what the caller wants already.
  if (await guests.isRunning(vmid)) await guests.stop(vmid)
  else await guests.reap(vmid)
}

export const stopGuest = command('qmstop', stop)
export const stopContainer = command('vzstop', stop)
export const resetGuest = command('qmreset', (guests, vmid) => guests.reset(vmid))

/** Halting and its opposite take each other back, unless there was nothing to do. */
function toggle(name: string, wanted: 'paused' | 'running') {
  const act = (guests: GuestService, vmid: Vmid, to: 'paused' | 'running') =>
    to === 'paused' ? guests.suspend(vmid) : guests.resume(vmid)
  return operation<PowerAct, PowerDeps>(name, aboutOneGuest)
    .step('look', {
      do: async ({ params, deps }) => {
        const vmid = asVmid(params.vmid)
        if (params.skipLock !== true) await deps.guests.requireUsable(vmid)
        return (await deps.guests.isPaused(vmid)) ? 'paused' : 'running'
      },
    })
    .step(wanted, {
      do: ({ params, deps }) => act(deps.guests, asVmid(params.vmid), wanted),
      undo: async ({ params, deps, done }) => {
        const vmid = asVmid(params.vmid)
        const before = done.look
        if (before === wanted || before === undefined || !(await deps.guests.isRunning(vmid))) return
        await act(deps.guests, vmid, before === 'paused' ? 'paused' : 'running')
      },
    })
}

export const suspendGuest = toggle('qmpause', 'paused')
export const resumeGuest = toggle('qmresume', 'running')
export const suspendContainer = toggle('vzsuspend', 'paused')
export const resumeContainer = toggle('vzresume', 'running')
