/** Fixed addresses guests are told to have, by where they have them. Pure. */
import { isIPv6 } from 'node:net'
import { networkOf } from './cloud-init/network.ts'
import type { Options } from './config.ts'
import type { GuestKind } from './kind.ts'
import * as container from './lxc/nic.ts'
import * as machine from './qemu/nic.ts'

export interface ClaimedAddress {
  /** `net0` */
  readonly nic: string
  readonly bridge: string
  readonly tag: number | undefined
  /** In one spelling. */
  readonly address: string
}

export function claimedAddresses(kind: GuestKind, options: Options): ClaimedAddress[] {
  return kind === 'lxc' ? ofContainer(options) : ofMachine(options)
}

function ofContainer(options: Options): ClaimedAddress[] {
  return container
    .nicsOf(options)
    .filter(({ isLinkDown }) => !isLinkDown)
    .flatMap(({ name, bridge, tag, ip, ip6 }) => claims(name, { bridge, tag }, [ip, ip6]))
}

function ofMachine(options: Options): ClaimedAddress[] {
  const cards = machine.nicsOf(options)
  const told = networkOf(options, { servers: [], search: [] }).cards
  return cards.flatMap(({ name, bridge, tag, isLinkDown }) => {
    const card = told.find((one) => one.name === name.replace('net', 'eth'))
    const texts = [card?.ip4, card?.ip6].map((how) => (how?.kind === 'static' ? `${how.address}/` : undefined))
    return isLinkDown ? [] : claims(name, { bridge, tag }, texts)
  })
}

function claims(
  nic: string,
  { bridge, tag }: { readonly bridge: string | undefined; readonly tag: number | undefined },
  texts: readonly (string | undefined)[],
): ClaimedAddress[] {
  if (bridge === undefined) return []
  return texts.flatMap((text) => {
    const [address = '', rest] = (text ?? '').split('/')
    return rest === undefined ? [] : [{ nic, bridge, tag, address: spelled(address) }]
  })
}

/** `2001:DB8:0::1` and `2001:db8::1` are one address. */
function spelled(address: string): string {
  return isIPv6(address) ? new URL(`http://[${address}]`).hostname.slice(1, -1) : address
}

export function isSame(a: ClaimedAddress, b: ClaimedAddress): boolean {
  return a.bridge === b.bridge && a.tag === b.tag && a.address === b.address
}
