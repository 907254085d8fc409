/** What the forms of network files have in common. */
import { BlockList, isIPv4 } from 'node:net'
import type { StaticAddress } from '../../cloud-init/network.ts'
import type { ToldNic } from './told.ts'

/** True when the way out lies outside of the card's own network, so that it must be said how it is reached. */
export function isBeyond({ address, bits, gateway }: StaticAddress): boolean {
  if (gateway === undefined) return false
  const family = isIPv4(address) ? 'ipv4' : 'ipv6'
  const own = new BlockList()
  own.addSubnet(address, bits, family)
  // Every card has a network of this kind.
  own.addSubnet('fe80::', 64, 'ipv6')
  return !own.check(gateway, family)
}

/** The fixed addresses of a card. */
export function fixedOf({ ip4, ip6 }: ToldNic): StaticAddress[] {
  return [ip4, ip6].flatMap((one) => (one?.kind === 'static' ? [one] : []))
}

/** True when the people inside look after the card themselves. */
export function isLeftAlone({ ip4, ip6 }: ToldNic): boolean {
  const kinds = [ip4?.kind, ip6?.kind]
  return kinds.includes('manual') && kinds.every((kind) => kind === 'manual' || kind === undefined)
}
