/** Waits for a restored guest to answer on its network, which is the isolated one and leads nowhere. */
import { waitFor } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { addressesOf } from '#host/network/ip.ts'
import { inNetns } from '#host/network/netns.ts'
import type { GuestAddress } from '#network/subnet.ts'
import type { DrillDeps, IsolatedNetwork, Scratch } from './drill-facts.ts'
import type { Drilled } from './drilled.ts'

/**
 * The first IPv4 address that answers an echo request sent from inside the isolated network. A guest that has an address
 * of its own keeps it, and all its files: the isolated network takes a place beside it.
 */
export async function waitForAddress(
  scratch: Scratch,
  network: IsolatedNetwork,
  drilled: Drilled,
): Promise<{ address: string; found: string }> {
  const { deps, timeoutMs, signal } = scratch
  let seen: readonly GuestAddress[] = []
  const address = await waitFor(
    async () => {
      seen = (await drilled.addresses(scratch)).filter(isOutward)
      for (const candidate of seen) if (await answers(deps, network, candidate)) return candidate.address
      return undefined
    },
    { what: 'network', timeoutMs, everyMs: 100, signal, clock: deps.clock },
  ).catch((error: unknown) => {
    if (!isFault(error, 'timeout')) throw error
    const which = seen.length === 0 ? 'no address of the guest' : seen.map((one) => one.address).join(', ')
    throw new Fault('unproven', `${which} answered inside the isolated network within ${timeoutMs / 1000} s`)
  })
  return { address, found: `${address} answers inside ${network.netns}` }
}

function isOutward({ address }: GuestAddress): boolean {
  return !address.startsWith('127.') && !address.startsWith('169.254.')
}

async function answers(deps: DrillDeps, { netns, bridge }: IsolatedNetwork, guest: GuestAddress): Promise<boolean> {
  await deps.network.joinIsolated(netns, guest)
  // What the network itself has would answer for a guest that does not.
  const own = await addressesOf(deps.host, bridge, { netns })
  if (own.some(({ address }) => address === guest.address)) return false
  const argv = inNetns(netns, ['busybox', 'ping', '-c', '1', '-W', '1', guest.address])
  const { code } = await deps.host.run(argv, { okCodes: [0, 1, 2], timeoutMs: 5_000 })
  return code === 0
}
