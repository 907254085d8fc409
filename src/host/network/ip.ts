/** Links, addresses and routes, by `ip -json`. Every verb takes a place: a namespace, or the machine's own. */
import { Fault } from '#base/fault.ts'
import type { Argv, Host } from '../host.ts'
import { iproute, type Row, rowOf, rows, rowsIn, textOf } from './iproute.ts'
import type { NetworkPlace } from './netns.ts'

export interface Link {
  readonly name: string
  readonly index: number
  /** `bridge`, `tun`, `veth`, …; nothing for hardware and loopback. */
  readonly kind: string | undefined
  readonly mac: string
  readonly isUp: boolean
  readonly mtu: number
  /** Name of the bridge it belongs to. */
  readonly master: string | undefined
  /** A note somebody left on it. */
  readonly alias: string | undefined
}

export interface Address {
  readonly link: string
  readonly family: 'inet' | 'inet6'
  readonly address: string
  readonly prefix: number
}

export interface Route {
  /** `10.0.0.0/24`, `10.0.0.1` or `default`. */
  readonly destination: string
  readonly link: string | undefined
  readonly gateway: string | undefined
}

export async function links(host: Host, place: NetworkPlace = {}): Promise<Link[]> {
  const { stdout } = await host.run(ip(place, '-json', '-details', 'link', 'show'))
  return parseLinks(stdout)
}

export function parseLinks(text: string): Link[] {
  return rowsIn(text).map(parseLink)
}

/** One row of `ip -json -details link show`. */
export function parseLink(row: Row): Link {
  const info = rowOf(row.linkinfo)
  const flags: unknown = row.flags
  return {
    name: String(row.ifname),
    index: Number(row.ifindex),
    kind: textOf(info.info_kind),
    mac: textOf(row.address) ?? '',
    isUp: Array.isArray(flags) && flags.includes('UP'),
    mtu: Number(row.mtu),
    master: textOf(row.master),
    alias: textOf(row.ifalias),
  }
}

export async function findLink(host: Host, name: string, place: NetworkPlace = {}): Promise<Link | undefined> {
  return (await links(host, place)).find((link) => link.name === name)
}

export async function addresses(host: Host, place: NetworkPlace = {}): Promise<Address[]> {
  const { stdout } = await host.run(ip(place, '-json', 'address', 'show'))
  return parseAddresses(stdout)
}

export function parseAddresses(text: string): Address[] {
  return rowsIn(text).flatMap((row) =>
    rows(row.addr_info).map((info) => ({
      link: String(row.ifname),
      family: info.family === 'inet6' ? ('inet6' as const) : ('inet' as const),
      address: String(info.local),
      prefix: Number(info.prefixlen),
    })),
  )
}

/** Links with their addresses in the network of another process. */
export async function addressesIn(
  host: Host,
  pid: number,
): Promise<{ readonly name: string; readonly mac: string; readonly addresses: readonly Address[] }[]> {
  const { stdout } = await host.run(['nsenter', `--net=/proc/${pid}/ns/net`, 'ip', '-json', 'address', 'show'])
  const all = parseAddresses(stdout)
  return rowsIn(stdout).map((row) => {
    const name = String(row.ifname)
    return { name, mac: textOf(row.address) ?? '', addresses: all.filter(({ link }) => link === name) }
  })
}

/** IPv4 routes of all tables, those to the machine's own addresses included. */
export async function routes(host: Host, place: NetworkPlace = {}): Promise<Route[]> {
  const { stdout } = await host.run(ip(place, '-json', '-4', 'route', 'show', 'table', 'all'))
  return parseRoutes(stdout)
}

export function parseRoutes(text: string): Route[] {
  return rowsIn(text).map((row) => ({
    destination: String(row.dst),
    link: textOf(row.dev),
    gateway: textOf(row.gateway),
  }))
}

/** What `ip link set` can change at once. */
export interface LinkChange {
  readonly isUp?: boolean
  /** Bridge to join. */
  readonly master?: string
  readonly alias?: string
  readonly mac?: string
  /** Namespace to move to. */
  readonly toNetns?: string
  readonly mtu?: number
  /** No link-local IPv6 address by itself. */
  readonly noAddressByItself?: boolean
}

export async function changeLink(
  host: Host,
  name: string,
  change: LinkChange,
  place: NetworkPlace = {},
): Promise<void> {
  const words: string[] = []
  if (change.alias !== undefined) words.push('alias', change.alias)
  if (change.master !== undefined) words.push('master', change.master)
  if (change.mac !== undefined) words.push('address', change.mac)
  if (change.mtu !== undefined) words.push('mtu', String(change.mtu))
  if (change.noAddressByItself) words.push('addrgenmode', 'none')
  if (change.isUp !== undefined) words.push(change.isUp ? 'up' : 'down')
  if (words.length > 0) await host.run(ip(place, 'link', 'set', 'dev', name, ...words))
  if (change.toNetns !== undefined) await host.run(ip(place, 'link', 'set', 'dev', name, 'netns', change.toNetns))
}

/** Removes a link. Idempotent, also when the link goes by itself meanwhile, as a container's does with its namespace. */
export async function deleteLink(host: Host, name: string, place: NetworkPlace = {}): Promise<void> {
  // 1: ip did not find it. 2: the kernel did not, because it went between ip's look and its request.
  const { code, stderr } = await host.run(ip(place, 'link', 'delete', 'dev', name), { okCodes: [0, 1, 2] })
  if (code !== 0 && !/Cannot find device|No such device/.test(stderr)) {
    throw new Fault('failed', `the link '${name}' could not be removed: ${stderr.trim()}`)
  }
}

/** Gives a link an address such as `10.0.0.1/24`. Idempotent. */
export async function setAddress(host: Host, name: string, cidr: string, place: NetworkPlace = {}): Promise<void> {
  await host.run(ip(place, 'address', 'replace', cidr, 'dev', name))
}

/** Gives a link an address to one neighbour, who is reached through it whatever network that one is in. Idempotent. */
export async function setNeighbour(
  host: Host,
  name: string,
  { own, peer }: { readonly own: string; readonly peer: string },
  place: NetworkPlace = {},
): Promise<void> {
  await host.run(ip(place, 'address', 'replace', own, 'peer', `${peer}/32`, 'dev', name))
}

export async function removeAddress(host: Host, name: string, cidr: string, place: NetworkPlace = {}): Promise<void> {
  await host.run(ip(place, 'address', 'delete', cidr, 'dev', name))
}

/** IPv4 addresses of one link. */
export async function addressesOf(host: Host, name: string, place: NetworkPlace = {}): Promise<Address[]> {
  return (await addresses(host, place)).filter(({ link, family }) => link === name && family === 'inet')
}

/** Makes a link; `words` are what `ip link add name X` takes after the name. */
export async function addLink(
  host: Host,
  name: string,
  words: readonly string[],
  place: NetworkPlace = {},
): Promise<void> {
  await host.run(ip(place, 'link', 'add', 'name', name, ...words))
}

function ip(place: NetworkPlace, ...words: string[]): Argv {
  return iproute('ip', place, ...words)
}
