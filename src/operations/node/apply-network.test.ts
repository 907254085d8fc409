/** Applying the network of a machine keeps the promises every operation makes. */
import { systemClock, waitFor } from '#base/clock.ts'
import { bridgeOverCard, smallMachine } from '#network/machine/small-machine.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { applyNetwork } from './apply-network.ts'

everyStepFails(applyNetwork, async () => {
  const small = await smallMachine()
  await small.network.create('vmbr0', bridgeOverCard)
  const ending = new AbortController()
  // Somebody who confirms as soon as there is something to confirm.
  const confirming = waitFor(
    async () => {
      const notice = await small.network.confirmations.current()
      if (notice?.sinceMs !== undefined)
        await small.network.confirmations.confirm({ user: 'root@pam', remoteAddress: '' })
      return undefined
    },
    { what: 'the end of the test', timeoutMs: 60_000, signal: ending.signal, everyMs: 20 },
  ).catch(() => {})
  return {
    params: { user: 'root@pam', way: 'network' as const, confirmSeconds: 30 },
    deps: { hostNetwork: small.network, clock: systemClock },
    look: () => small.look(),
    async [Symbol.asyncDispose]() {
      ending.abort()
      await confirming
      await small[Symbol.asyncDispose]()
    },
  }
})
