/** Everything the kernel says about the links of a network, by `ip -json` and `bridge -json`: one row for each thing. */
import { Fault } from '#base/fault.ts'
import type { Host } from '../host.ts'
import { type Link, parseLink } from './ip.ts'
import { iproute, rowOf, rows, rowsIn, textOf } from './iproute.ts'
import type { NetworkPlace } from './netns.ts'

export interface LinkRow extends Omit<Link, 'index'> {
  /** The link a VLAN rides on. */
  readonly parent: string | undefined
  /** Its other end is in another network namespace. */
  readonly leadsOutside: boolean
  /** What the kernel says of a link of its kind: `vlan_filtering`, `id`, `mode`, … */
  readonly data: Readonly<Record<string, unknown>>
}

export interface AddressRow {
  readonly link: string
  readonly family: 'inet' | 'inet6'
  readonly cidr: string
  readonly label: string | undefined
  readonly scope: string
}

export interface RouteRow {
  readonly link: string
  readonly family: 'inet' | 'inet6'
  readonly destination: string
  readonly gateway: string | undefined
  readonly metric: number | undefined
  /** `kernel`, `static`, `boot`, `dhcp`, `ra`, … */
  readonly protocol: string
}

export interface VlanRow {
  readonly link: string
  readonly first: number
  readonly last: number
  /** `PVID`, `Egress Untagged` */
  readonly flags: readonly string[]
}

export async function linkRows(host: Host, place: NetworkPlace = {}): Promise<LinkRow[]> {
  return parseLinkRows((await host.run(iproute('ip', place, '-json', '-details', 'link', 'show'))).stdout)
}

export function parseLinkRows(text: string): LinkRow[] {
  return rowsIn(text).map((row) => {
    const { index: _, ...link } = parseLink(row)
    return {
      ...link,
      parent: textOf(row.link),
      leadsOutside: row.link_netnsid !== undefined,
      data: rowOf(rowOf(row.linkinfo).info_data),
    }
  })
}

/** Links, addresses and IPv4 routes of the main table, all by one look. */
export async function networkRows(host: Host, place: NetworkPlace = {}) {
  const input = 'address show\nroute show table main\n'
  const { stdout } = await host.run(iproute('ip', place, '-json', '-details', '-batch', '-'), { input })
  // One line for each question.
  const [first = '', second = ''] = stdout.split('\n').filter((line) => line.trim() !== '')
  return { links: parseLinkRows(first), addresses: parseAddressRows(first), routes: parseRouteRows(second, 'inet') }
}

export function parseAddressRows(text: string): AddressRow[] {
  return rowsIn(text).flatMap((row) =>
    rows(row.addr_info).map((info) => ({
      link: String(row.ifname),
      family: info.family === 'inet6' ? ('inet6' as const) : ('inet' as const),
      cidr: `${String(info.local)}/${Number(info.prefixlen)}`,
      label: textOf(info.label),
      scope: textOf(info.scope) ?? '',
    })),
  )
}

/** IPv6 routes of the main table. */
export async function routeRows6(host: Host, place: NetworkPlace = {}): Promise<RouteRow[]> {
  const { stdout } = await host.run(iproute('ip', place, '-json', '-6', 'route', 'show', 'table', 'main'))
  return parseRouteRows(stdout, 'inet6')
}

export function parseRouteRows(text: string, family: 'inet' | 'inet6'): RouteRow[] {
  return rowsIn(text).flatMap((row) => {
    const link = textOf(row.dev)
    if (link === undefined) return []
    const metric = typeof row.metric === 'number' && row.metric > 0 ? row.metric : undefined
    const protocol = textOf(row.protocol) ?? 'boot'
    return [{ link, family, destination: String(row.dst), gateway: textOf(row.gateway), metric, protocol }]
  })
}

/** VLANs of the ports of bridges that tell VLANs apart, and of these bridges themselves. */
export async function vlanRows(host: Host, place: NetworkPlace = {}): Promise<VlanRow[]> {
  return parseVlanRows((await host.run(iproute('bridge', place, '-json', '-compressvlans', 'vlan', 'show'))).stdout)
}

export function parseVlanRows(text: string): VlanRow[] {
  return rowsIn(text).flatMap((row) =>
    rows(row.vlans).map((info) => {
      const first = Number(info.vlan)
      const flags: unknown = info.flags
      const last = info.vlanEnd === undefined ? first : Number(info.vlanEnd)
      return { link: String(row.ifname), first, last, flags: Array.isArray(flags) ? flags.map(String) : [] }
    }),
  )
}

/**
 * Runs commands of `ip` or `bridge` one after the other in one process, so that a network that is being changed under a
 * client's feet is whole again as soon as can be. Ends at the first that fails.
 * @throws Fault `failed` with that command and what the kernel said, `unavailable` when the kernel has no such thing
 */
export async function changeNetwork(
  host: Host,
  program: 'ip' | 'bridge',
  commands: readonly (readonly string[])[],
  place: NetworkPlace = {},
): Promise<void> {
  const input = commands.map((words) => words.map(quoted).join(' ')).join('\n')
  const { code, stderr } = await host.run(iproute(program, place, '-batch', '-'), { input, okCodes: [0, 1, 2, 255] })
  if (code === 0) return
  const failed = commands[Number(/Command failed -:(\d+)/.exec(stderr)?.[1] ?? 1) - 1] ?? []
  const complaint = stderr.split('\n').find((line) => line.trim() !== '' && !line.startsWith('Command failed'))
  const said = complaint?.replace(/^(?:RTNETLINK answers|Error): /, '') ?? 'nothing'
  const isLack = /Unknown device type|Operation not supported/.test(stderr)
  throw new Fault(isLack ? 'unavailable' : 'failed', `'${[program, ...failed].join(' ')}' failed: ${said}`, {
    cause: { stderr },
    ...(isLack ? { remedy: "This machine's kernel lacks what is asked for: VLANs need 8021q, bonds bonding." } : {}),
  })
}

/** A word that would be two in there is no word any of our commands has. */
function quoted(word: string): string {
  if (/^[^\s'"\\#]+$/.test(word)) return word
  throw new Fault('invalid', `'${word}' cannot be part of a command of iproute2`)
}
