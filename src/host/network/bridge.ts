/**
 * Bridges: software switches that guests are plugged into.
 *
 * A bridge gets a fixed MAC address, for otherwise it takes over the lowest of its ports and changes its
 * identity whenever a guest comes or goes. It has no IPv6 of its own: a guest that announces itself as a
 * router would else become the machine's default route.
 */
import { Fault } from '#base/fault.ts'
import type { Host } from '../host.ts'
import { addLink, addressesOf, changeLink, findLink, links, removeAddress, setAddress } from './ip.ts'
import type { NetworkPlace } from './netns.ts'
import { changeNetwork, vlanRows } from './network-state.ts'
import { writeSysctl } from './sysctl.ts'

export interface BridgeWish extends NetworkPlace {
  readonly name: string
  /** Its own address and the size of its network, `10.0.0.1/24`. */
  readonly address: string
  readonly mac: string
  /** A note on the link that says whose it is. */
  readonly alias: string
}

/**
 * Makes the bridge, or brings the one that is there into this state.
 * @returns whether it is new; who listened on its predecessor of the same name hears nothing any more
 * @throws Fault `conflict` when a link of that name is something else or belongs to somebody else.
 */
export async function createBridge(host: Host, wish: BridgeWish): Promise<{ isNew: boolean }> {
  const { name, address, mac, alias } = wish
  const there = await findLink(host, name, wish)
  if (there && (there.kind !== 'bridge' || (there.alias !== undefined && there.alias !== alias))) {
    throw new Fault('conflict', `the network interface '${name}' exists and is not ours`, {
      remedy: 'Remove or rename it, or give this node another instance name.',
    })
  }
  // No spanning tree and no delay: a port carries frames from its first moment, DHCP included.
  const options = ['address', mac, 'type', 'bridge', 'stp_state', '0', 'forward_delay', '0']
  if (!there) await addLink(host, name, options, wish)
  await writeSysctl(host, `net/ipv6/conf/${name}/disable_ipv6`, '1', wish)
  await changeLink(host, name, { alias, mac }, wish)
  for (const { address: old, prefix } of await addressesOf(host, name, wish)) {
    if (`${old}/${prefix}` !== address) await removeAddress(host, name, `${old}/${prefix}`, wish)
  }
  await setAddress(host, name, address, wish)
  await changeLink(host, name, { isUp: true }, wish)
  return { isNew: there === undefined }
}

/** Names of the links plugged into the bridge. */
export async function portsOf(host: Host, name: string, place: NetworkPlace = {}): Promise<string[]> {
  return (await links(host, place)).filter((link) => link.master === name).map((link) => link.name)
}

/** What passes a port of a bridge that tells VLANs apart. */
export interface PortVlans {
  /** Frames without a tag belong to this one. */
  readonly own: number
  /** Those that pass with their tags, `10` or `20-30`. */
  readonly carried: readonly string[]
}

/** Makes the port carry these VLANs and no others. */
export async function setPortVlans(host: Host, port: string, { own, carried }: PortVlans, place: NetworkPlace = {}) {
  const words = (verb: 'add' | 'del', vid: string, ...flags: string[]) => [
    'vlan',
    verb,
    'dev',
    port,
    'vid',
    vid,
    ...flags,
  ]
  const before = (await vlanRows(host, place)).filter(({ link }) => link === port)
  const commands = [
    ...before.map(({ first, last }) => words('del', first === last ? String(first) : `${first}-${last}`)),
    ...carried.map((range) => words('add', range)),
    // Last: it may lie within a range that was just added.
    words('add', String(own), 'pvid', 'untagged'),
  ]
  await changeNetwork(host, 'bridge', commands, place)
}
