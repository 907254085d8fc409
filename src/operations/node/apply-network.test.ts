/** Applying the network of a machine keeps the promises every operation makes. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock, waitFor } from '#base/clock.ts'
import { bridgeOverCard, smallMachine } from '#network/machine/small-machine.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
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

test('when the kernel refuses a step, its words are told and the old network is back', async () => {
  await using small = await smallMachine()
  await small.network.create('vmbr0', { ...bridgeOverCard, cidr6: 'fd00:1::2/64', gateway6: 'fd00:2::1' })
  const before = await small.look()
  const lines: string[] = []
  const applying = perform(
    applyNetwork,
    { user: 'root@pam', way: 'network', confirmSeconds: 0 },
    { hostNetwork: small.network, clock: systemClock },
    memoryJournal(),
    { log: (line) => lines.push(line) },
  )
  await assert.rejects(applying, {
    message: "'ip route replace ::/0 via fd00:2::1 dev vmbr0 proto static' failed: No route to host",
  })
  assert.ok(lines.includes('putting the network back as it was'))
  assert.deepEqual(await small.look(), before)
})
