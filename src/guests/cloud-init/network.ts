/** How a guest is told about its cards: one description, and the forms it takes on a drive. */
import { isIPv4 } from 'node:net'
import { splitList } from '#base/schema/formats.ts'
import type { Options } from '../config.ts'
import { nicsOf } from '../qemu/nic.ts'
import { ipConfigOf } from './options.ts'

export interface StaticAddress {
  readonly kind: 'static'
  readonly address: string
  readonly bits: number
  readonly gateway?: string
}
export type Addressing = { readonly kind: 'dhcp' | 'auto' | 'manual' } | StaticAddress

export interface ToldCard {
  /** `eth0`, by the number of the card. */
  readonly name: string
  /** Lower case. */
  readonly mac: string
  readonly ip4?: Addressing
  readonly ip6?: Addressing
}

export interface Dns {
  readonly servers: readonly string[]
  readonly search: readonly string[]
}

export interface ToldNetwork {
  readonly cards: readonly ToldCard[]
  readonly dns: Dns
}

/** @param ofNode what a guest is told that names neither servers nor domains, and does not ask a DHCP server */
export function networkOf(options: Options, ofNode: Dns): ToldNetwork {
  const cards = nicsOf(options).map(({ name, mac }) => cardOf(name.slice('net'.length), mac, options))
  const own = { servers: splitList(options.nameserver ?? ''), search: splitList(options.searchdomain ?? '') }
  const isOwn = own.servers.length + own.search.length > 0
  const asksDhcp = cards.some(({ ip4, ip6 }) => ip4?.kind === 'dhcp' || ip6?.kind === 'dhcp')
  return { cards, dns: isOwn || asksDhcp ? own : ofNode }
}

function cardOf(number: string, mac: string, options: Options): ToldCard {
  const { ip, gw, ip6, gw6 } = ipConfigOf(options[`ipconfig${number}`] ?? '')
  const isSilent = ip === undefined && ip6 === undefined
  return {
    name: `eth${number}`,
    mac: mac.toLowerCase(),
    ...(isSilent ? { ip4: { kind: 'dhcp' } } : {}),
    ...(ip === undefined ? {} : { ip4: addressing(ip, gw) }),
    ...(ip6 === undefined ? {} : { ip6: addressing(ip6, gw6) }),
  }
}

/** `dhcp`, `auto`, `manual`, or an address with its network's size. */
export function addressing(text: string, gateway: string | undefined): Addressing {
  if (text === 'dhcp' || text === 'auto' || text === 'manual') return { kind: text }
  const [address = '', bits] = text.split('/')
  return { kind: 'static', address, bits: Number(bits), ...(gateway === undefined ? {} : { gateway }) }
}

/** Version 1 of cloud-init's own description, which every release of it reads. */
export function networkConfigV1({ cards, dns }: ToldNetwork): object {
  const named = cards.map(({ name, mac, ip4, ip6 }) => ({
    type: 'physical',
    name,
    mac_address: mac,
    subnets: [ip4 && subnet(ip4, '4'), ip6 && subnet(ip6, '6')].filter((one) => one !== undefined),
  }))
  const { servers, search } = dns
  const resolver = {
    type: 'nameserver',
    ...(servers.length > 0 ? { address: [...servers] } : {}),
    ...(search.length > 0 ? { search: [...search] } : {}),
  }
  return { version: 1, config: servers.length + search.length > 0 ? [...named, resolver] : named }
}

function subnet(how: Addressing, version: '4' | '6'): object {
  switch (how.kind) {
    case 'dhcp':
      return { type: `dhcp${version}` }
    case 'auto':
      return { type: 'ipv6_slaac' }
    case 'manual':
      return { type: 'manual' }
    case 'static': {
      const { address, bits, gateway } = how
      return {
        type: version === '4' ? 'static' : 'static6',
        address: `${address}/${bits}`,
        ...(gateway ? { gateway } : {}),
      }
    }
    default:
      return how satisfies never
  }
}

/** OpenStack's `network_data.json`, which cloud-init and its relative for Windows read from a config drive. */
export function networkDataJson({ cards, dns }: ToldNetwork): object {
  const links = cards.map(({ name, mac }) => ({ id: name, type: 'phy', ethernet_mac_address: mac }))
  const networks = cards.flatMap(({ name, ip4, ip6 }) => [
    ...(ip4 ? [network(name, ip4, '4')] : []),
    ...(ip6 ? [network(name, ip6, '6')] : []),
  ])
  return { links, networks, services: dns.servers.map((address) => ({ type: 'dns', address })) }
}

function network(link: string, how: Addressing, version: '4' | '6'): object {
  const at = { id: `${link}-ipv${version}`, link }
  switch (how.kind) {
    case 'dhcp':
      return { ...at, type: version === '4' ? 'ipv4_dhcp' : 'ipv6_dhcpv6-stateful' }
    case 'auto':
      return { ...at, type: 'ipv6_slaac' }
    case 'manual':
      return { ...at, type: `ipv${version}` }
    case 'static': {
      const { address, bits, gateway } = how
      const any = version === '4' ? '0.0.0.0' : '::'
      const routes = gateway === undefined ? [] : [{ network: any, netmask: any, gateway }]
      return { ...at, type: `ipv${version}`, ip_address: address, netmask: netmaskOf(address, bits), routes }
    }
    default:
      return how satisfies never
  }
}

/** `255.255.255.0`, `ffff:ffff::`. */
export function netmaskOf(address: string, bits: number): string {
  const isV4 = isIPv4(address)
  const [width, groupBits, base] = isV4 ? [32, 8, 10] : [128, 16, 16]
  const groups = Array.from({ length: width / groupBits }, (_, index) => {
    const ones = Math.min(groupBits, Math.max(0, bits - index * groupBits))
    return (2 ** groupBits - 2 ** (groupBits - ones)).toString(base)
  })
  return groups.join(isV4 ? '.' : ':')
}
