/** Asks the kernel what the network is now. */
import type { Host } from '#host/host.ts'
import type { NetworkPlace } from '#host/network/netns.ts'
import { networkRows, routeRows6, vlanRows, type LinkRow, type VlanRow } from '#host/network/network-state.ts'
import type { LinkState, NetworkState, VlanRange } from './state.ts'

/** Routes that are there because of an address, or that routers announced, come and go by themselves. */
const byItself = new Set(['kernel', 'ra', 'redirect'])

export async function observe(host: Host, place: NetworkPlace = {}): Promise<NetworkState> {
  const { links, addresses, routes: four } = await networkRows(host, place)
  // A kernel without IPv6 would take the question for a mistake.
  const isSix = addresses.some(({ family, scope }) => family === 'inet6' && scope === 'global')
  const routes = isSix ? [...four, ...(await routeRows6(host, place))] : four
  const isAnyVlanAware = links.some(({ data }) => data.vlan_filtering === 1)
  const vlans = isAnyVlanAware ? await vlanRows(host, place) : []
  const states = links.map((row): [string, LinkState] => [
    row.name,
    {
      ...linkOf(row, links),
      ...vlansOf(row, links, vlans),
      addresses: addresses
        .filter(({ link, scope }) => link === row.name && scope === 'global')
        .map(({ family, cidr, label }) => ({
          family,
          cidr,
          ...(label === undefined || label === row.name ? {} : { label }),
        })),
      routes: routes
        .filter(({ link, protocol }) => link === row.name && !byItself.has(protocol))
        .map(({ family, destination, gateway, metric }) => ({
          family,
          destination,
          ...(gateway === undefined ? {} : { gateway }),
          // 1024 is what the kernel puts where nobody asked for one.
          ...(metric === undefined || (family === 'inet6' && metric === 1024) ? {} : { metric }),
        })),
    },
  ])
  return Object.fromEntries(states)
}

function linkOf(
  { name, kind, mac, isUp, mtu, master, alias, parent, leadsOutside, data }: LinkRow,
  all: readonly LinkRow[],
): Omit<LinkState, 'addresses' | 'routes' | 'vlans'> {
  const hasPrimary = typeof data.primary === 'string' && all.some((other) => other.name === data.primary)
  return {
    name,
    ...(kind === undefined ? {} : { kind }),
    mac,
    isUp,
    mtu,
    ...(master === undefined ? {} : { master }),
    ...(alias === undefined ? {} : { alias }),
    ...(leadsOutside ? { leadsOutside } : {}),
    ...(kind === 'bridge' ? { bridge: { isVlanAware: data.vlan_filtering === 1 } } : {}),
    ...(kind === 'vlan' ? { vlan: { id: Number(data.id), parent: parent ?? '' } } : {}),
    ...(kind === 'bond'
      ? {
          bond: {
            mode: String(data.mode),
            hashPolicy: String(data.xmit_hash_policy),
            ...(hasPrimary ? { primary: String(data.primary) } : {}),
          },
        }
      : {}),
  }
}

function vlansOf(
  { name, kind, master, data }: LinkRow,
  all: readonly LinkRow[],
  rows: readonly VlanRow[],
): { vlans?: readonly VlanRange[] } {
  const bridge = kind === 'bridge' ? data : all.find((link) => link.name === master && link.kind === 'bridge')?.data
  if (bridge?.vlan_filtering !== 1) return {}
  return {
    vlans: rows
      .filter(({ link }) => link === name)
      .map(({ first, last, flags }) => ({ first, last, isOwn: flags.includes('PVID') })),
  }
}
