/**
 * Cards of a container that runs: what of them can be changed under it, and how.
 *
 * Cards neither come nor go while it runs: when it reboots by itself LXC gives it the cards it was started with, and one
 * that is missing then keeps it from starting.
 */
import type { Vmid } from '#base/ids.ts'
import type { Host } from '#host/host.ts'
import type { Options } from '../config.ts'
import type { GuestNetwork } from '../needs.ts'
import { type Nic, nicOf } from './nic.ts'

/** Whether the change of a card can be followed at once. */
export function isLiveChange(name: string, before: string | undefined, after: string | undefined): boolean {
  if (before === undefined || after === undefined) return false
  const [old, next] = [nicOf(name, before), nicOf(name, after)]
  if (old.inside !== next.inside || old.mac !== next.mac) return false
  if ((old.bridge === undefined) !== (next.bridge === undefined)) return false
  return areStaticOr(old, next)
}

/** Addresses its own system asks for, or that LXC gives it at each start, are for the next start. */
function areStaticOr(old: Nic, next: Nic): boolean {
  const places = (nic: Nic) => [nic.ip, nic.gateway, nic.ip6, nic.gateway6, nic.isHostManaged].join(' ')
  if (places(old) === places(next)) return true
  if (old.isHostManaged || next.isHostManaged) return false
  return [old, next].every(({ ip, ip6 }) => [ip, ip6].every((one) => one === undefined || one.includes('/')))
}

export interface CardContext {
  readonly host: Host
  readonly network: Pick<GuestNetwork, 'move'>
  readonly vmid: Vmid
  /** Its init, whose network is the container's. */
  readonly init: number
  /** The node's end of its cable; absent for a card without one. */
  readonly tap: string | undefined
}

export async function changeCard(context: CardContext, before: Nic, after: Nic): Promise<void> {
  const { host, network, vmid, init, tap } = context
  const { name, mac, bridge, tag, trunks, rate, mtu = usualMtu, isLinkDown: isDown } = after
  if (bridge !== undefined && tap !== undefined) {
    await network.move({ vmid, nic: name, mac, bridge, tag, trunks, rate, isDown, mtu })
  }
  const inside = (...words: string[]) => host.run(['nsenter', `--net=/proc/${init}/ns/net`, 'ip', ...words])
  if (before.mtu !== after.mtu) {
    await inside('link', 'set', 'dev', after.inside, 'mtu', String(mtu))
  }
  for (const [family, old, next] of [
    ['-4', [before.ip, before.gateway], [after.ip, after.gateway]],
    ['-6', [before.ip6, before.gateway6], [after.ip6, after.gateway6]],
  ] as const) {
    if (old.join(' ') !== next.join(' ')) await moveAddress(inside, { family, card: after.inside, old, next })
  }
}

const usualMtu = 1500

type Place = readonly [address: string | undefined, gateway: string | undefined]

async function moveAddress(
  inside: (...words: string[]) => Promise<unknown>,
  { family, card, old, next }: { family: '-4' | '-6'; card: string; old: Place; next: Place },
): Promise<void> {
  const [address, gateway] = next
  if (old[0] !== undefined && old[0] !== address) {
    // Somebody inside may have taken it away before.
    await inside(family, 'address', 'delete', old[0], 'dev', card).catch(() => {})
  }
  if (address !== undefined) await inside(family, 'address', 'replace', address, 'dev', card)
  if (gateway !== undefined) await inside(family, 'route', 'replace', 'default', 'via', gateway, 'dev', card)
  else if (old[1] !== undefined) await inside(family, 'route', 'delete', 'default', 'dev', card).catch(() => {})
}

/** Names of the cards whose change can be followed. */
export function liveCards(running: Options, wanted: Options): string[] {
  return Object.keys(running).filter(
    (name) =>
      /^net\d+$/.test(name) && running[name] !== wanted[name] && isLiveChange(name, running[name], wanted[name]),
  )
}
