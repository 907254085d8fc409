/**
 * Applies the staged network, and takes it back unless somebody shows in time that the node can still be reached.
 *
 * Putting the old network back is the undo of the change, so it happens in every case an undo does: nobody confirmed, a
 * step failed, the task was stopped, its process was killed, or the daemon died with it.
 */
import { type Clock, waitFor } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Way } from '#network/machine/confirmation.ts'
import type { HostNetwork } from '#network/machine/service.ts'
import { operation } from '#tasks/operation.ts'

export interface ApplyNetwork {
  /** Who must show that the node can be reached. */
  readonly user: string
  /** How the wish to apply came in. */
  readonly way: Way
  /** 0: nobody has to. */
  readonly confirmSeconds: number
}

interface Deps {
  readonly hostNetwork: HostNetwork
  readonly clock: Clock
}

export const applyNetwork = operation<ApplyNetwork, Deps>('networkapply', {
  upidType: 'srvreload',
  id: () => 'networking',
  locks: () => ['network'],
})
  .step('plan', {
    async do({ deps, log }) {
      const plan = await deps.hostNetwork.plan()
      for (const line of plan.diff.split('\n').filter(Boolean)) log(line)
      if (plan.names.length === 0) log('the network is as it is declared')
      return plan
    },
  })
  .step('notice', {
    do: ({ params, deps, task }) =>
      deps.hostNetwork.confirmations.announce({ upid: task.upid, user: params.user, way: params.way }),
    undo: ({ deps, task }) => deps.hostNetwork.confirmations.forget(task.upid),
    always: true,
  })
  .step('change', {
    do: ({ deps, done, log, signal }) => deps.hostNetwork.carryOut(done.plan, log, signal),
    async undo({ deps, done, log }) {
      if (!done.plan) return
      log('putting the network back as it was')
      await deps.hostNetwork.takeBack(done.plan, log)
    },
  })
  .step('confirmation', {
    async do({ params: { confirmSeconds }, deps, done, log, progress, signal }) {
      if (done.plan.names.length === 0 || confirmSeconds === 0) return
      const { confirmations } = deps.hostNetwork
      const until = deps.clock.now() + confirmSeconds * 1000
      await confirmations.begin(until)
      log(`the new network is in force; it is put back in ${confirmSeconds} s unless it is confirmed`)
      log('any further call over the network by who asked for it confirms, and so does: hako network confirm')
      const confirmed = async () => {
        const left = Math.max(0, until - deps.clock.now())
        progress(`waiting ${Math.ceil(left / 1000)} s for confirmation`, 1 - left / (confirmSeconds * 1000))
        return (await confirmations.current())?.confirmedBy
      }
      const waiting = {
        what: 'confirmation',
        timeoutMs: confirmSeconds * 1000,
        everyMs: 100,
        signal,
        clock: deps.clock,
      }
      const by = await waitFor(confirmed, waiting).catch((error: unknown) => {
        if (!isFault(error, 'timeout')) throw error
        throw new Fault('timeout', `not confirmed within ${confirmSeconds} s: the network was put back as it was`, {
          remedy: 'What was staged is still staged: correct it and apply again, or revert it.',
        })
      })
      log(`confirmed by ${by}`)
    },
  })
  .step('keep', {
    do: ({ deps, done }) => deps.hostNetwork.keep(done.plan),
    undo: ({ deps, done }) => (done.plan ? deps.hostNetwork.unkeep(done.plan) : undefined),
  })
