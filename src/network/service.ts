/**
 * The networks of this node: bridges with a way out, isolated networks without one, and guests' cables.
 *
 * Every verb is idempotent and leaves a record in the store before it makes something, so a process that
 * dies in between leaves nothing another one cannot find: calling the verb again, or its opposite, is the
 * repair. `removeEverything` looks besides at the machine itself, by name.
 *
 * Invariant of an isolated network: it is a network namespace of its own with nothing in it but loopback,
 * one bridge, and taps. There is no link to the machine, so no rule has to keep anything in. The tempting
 * way, a bridge on the machine guarded by filter rules, is one forgotten rule away from a restored guest
 * that talks to its original.
 *
 * Who may run beside whom: any number of processes of one node. Two that make the same bridge make it once.
 */
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { macAddress, type Random } from '#base/random.ts'
import { createBridge } from '#host/network/bridge.ts'
import * as dnsmasq from '#host/network/dnsmasq.ts'
import type { Host } from '#host/host.ts'
import { addresses, deleteLink, findLink, links, routes, setNeighbour } from '#host/network/ip.ts'
import { createNetns, listNetns, netnsExists, removeNetns } from '#host/network/netns.ts'
import { nameServers } from '#host/network/resolver.ts'
import type { Store } from '#store/store.ts'
import type { Settings } from '#settings.ts'
import { applyForwarding, forgetForwarding } from './forwarding.ts'
import { type Names, namesOf } from './names.ts'
import {
  type BridgeRecord,
  type IsolatedRecord,
  networkRecords,
  type NetworkRecords,
  type TapRecord,
} from './records.ts'
import { SpareTaps } from './spare-taps.ts'
import {
  addressIn,
  contains,
  type GuestAddress,
  formatSubnet,
  netmaskOf,
  overlaps,
  parseAddress,
  parseSubnet,
  placeBeside,
  type Subnet,
} from './subnet.ts'
import { type Cable, moveTap, plugCable, plugTap, type Plugged, unplugTaps } from './taps.ts'

export interface NetworkNeeds {
  readonly settings: Settings
  readonly store: Store
  readonly host: Host
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

export interface BridgeWish {
  readonly name: string
  /** Its network, `10.181.3.0/24`, or its own address in it, `10.181.3.1/24`. At most /29. */
  readonly cidr: string
  /** Whether guests reach the outside, under the machine's address. */
  readonly nat: boolean
  /** Addresses to give out, first and last; without `range` those from a fifth of the network on. `false`: no DHCP. */
  readonly dhcp?: { readonly range?: readonly [string, string] } | false
}

export interface BridgeInfo {
  readonly name: string
  /** Its own address and prefix. */
  readonly cidr: string
  readonly nat: boolean
  readonly range: readonly string[] | undefined
  /** Whether the link is there and up, and DHCP, where wanted, runs. */
  readonly isActive: boolean
}

export interface Card {
  readonly vmid: number
  /** `net0` */
  readonly nic: string
  readonly mac: string
  /** In an isolated network its own bridge is used, whatever this says. */
  readonly bridge: string
  readonly netns?: string | undefined
  /** Its VLAN; its frames carry no tag. In an isolated network there are no VLANs. */
  readonly tag?: number | undefined
  /** VLANs it may use with their tags, `10;20-30`. */
  readonly trunks?: string | undefined
  /** Bytes a second at most, each way. In an isolated network there is no limit. */
  readonly rate?: number | undefined
  /** The cable is there, and carries nothing. */
  readonly isDown?: boolean | undefined
  /** Of the node's end of a cable: frames up to this length come through. */
  readonly mtu?: number | undefined
}

export interface IsolatedNetwork {
  readonly netns: string
  readonly bridge: string
  /** Address of the bridge and the size of the network. */
  readonly cidr: string
}

/** A bridge on the machine, or the one of an isolated network. */
export interface Where {
  readonly bridge?: string | undefined
  readonly netns?: string | undefined
}

/** Isolated networks cannot meet, so all of them use the same. */
const ISOLATED_CIDR = '10.181.255.1/24'
const SUBNETS = parseSubnet('10.181.0.0/16')

export class NetworkService {
  readonly #needs: NetworkNeeds
  readonly #names: Names
  readonly #records: NetworkRecords
  readonly spares: SpareTaps

  constructor(needs: NetworkNeeds) {
    this.#needs = needs
    this.#names = namesOf(needs.settings.instance)
    this.#records = networkRecords(needs.store)
    this.spares = new SpareTaps(this.#parts())
  }

  /**
   * Makes a bridge with what belongs to it, or brings it back into that state: after a reboot, or after
   * the death of its DHCP service, calling this again is the repair.
   * @throws Fault `invalid` for a network that is none or too small, `conflict` when the name is taken.
   */
  async ensureBridge(wish: BridgeWish): Promise<void> {
    const { host, random } = this.#needs
    const { address, range } = plan(wish)
    const old = await this.#records.bridges.find(wish.name)
    if (!old) await this.#refuseForeign(wish.name)
    const record: BridgeRecord = {
      address,
      mac: old?.value.mac ?? macAddress(random),
      nat: wish.nat,
      ...(range === undefined ? {} : { range: [...range] }),
    }
    await this.#records.bridges.put(wish.name, record)
    const link = { name: wish.name, address, mac: record.mac, alias: this.#names.alias }
    const { isNew } = await createBridge(host, link)
    if (isNew) await dnsmasq.stopDhcp(this.#dhcpOf({ bridge: wish.name }))
    await applyForwarding(this.#parts())
    if (range === undefined) await dnsmasq.removeDhcp(this.#dhcpOf({ bridge: wish.name }))
    else await this.#serve(wish.name, record, range, wish.nat ? await nameServers() : [])
  }

  /** Removes the bridge, its DHCP service and its rules. Idempotent; a link that is not ours stays. */
  async removeBridge(name: string): Promise<void> {
    const { host } = this.#needs
    await dnsmasq.removeDhcp(this.#dhcpOf({ bridge: name }))
    const link = await findLink(host, name)
    if (link && this.#names.isOurLink(link)) await deleteLink(host, name)
    await this.#records.bridges.alter(name, () => undefined)
    await applyForwarding(this.#parts())
  }

  /** Every bridge this node made, sorted by name. */
  async bridges(): Promise<BridgeInfo[]> {
    const [records, present] = [await this.#records.bridges.list(), await links(this.#needs.host)]
    return Promise.all(
      records.map(async ({ name, value }) => {
        const isUp = present.some((link) => link.name === name && link.isUp)
        const isServed = value.range === undefined || (await dnsmasq.isDhcpRunning(this.#dhcpOf({ bridge: name })))
        return { name, cidr: value.address, nat: value.nat, range: value.range, isActive: isUp && isServed }
      }),
    )
  }

  /** Every bridge of this machine, whoever made it. */
  async bridgeNames(): Promise<string[]> {
    return (await links(this.#needs.host)).flatMap(({ name, kind }) => (kind === 'bridge' ? [name] : []))
  }

  /**
   * Opens a tap for a guest's card and joins it to its bridge. The descriptor is open in this process:
   * hand it to QEMU, then close it; the tap vanishes with its last holder.
   * @throws Fault `missing` when there is no such bridge or isolated network, `conflict` when it is plugged in already.
   */
  async plug(card: Card): Promise<Plugged> {
    return plugTap(this.#parts(), await this.#placed(card))
  }

  /** Takes a card that is plugged in to another bridge, without the guest noticing. Not in an isolated network. */
  async move(card: Omit<Card, 'netns'>): Promise<void> {
    await moveTap(this.#parts(), card)
  }

  /** As `plug`, for a card of a container: the cable has an end it can take. */
  async plugCable(card: Card): Promise<Cable> {
    return plugCable(this.#parts(), await this.#placed(card))
  }

  async #placed({ netns, ...card }: Card): Promise<TapRecord> {
    if (netns === undefined) return card
    const { vmid, nic, mac, isDown } = card
    return { vmid, nic, mac, isDown, bridge: (await this.#isolatedIn(netns)).bridge, netns }
  }

  /** Takes a card off the network, or all cards of a guest. Idempotent. */
  async unplug({ vmid, nic }: { vmid: number; nic?: string; netns?: string | undefined }): Promise<void> {
    await unplugTaps(this.#parts(), vmid, nic)
  }

  /** Makes a network with DHCP and no way out, or finds it. */
  async createIsolated(name: string): Promise<IsolatedNetwork> {
    const { host, random } = this.#needs
    const netns = this.#names.netns(name)
    const wish: IsolatedRecord = {
      netns,
      bridge: this.#names.isolatedBridge,
      address: ISOLATED_CIDR,
      mac: macAddress(random),
    }
    const { bridge, address, mac } = (await this.#records.isolated.alter(name, (value) => value ?? wish)) ?? wish
    await createNetns(host, netns)
    const { isNew } = await createBridge(host, { name: bridge, address, mac, alias: this.#names.alias, netns })
    if (isNew) await dnsmasq.stopDhcp(this.#dhcpOf({ netns }))
    const { prefix, range } = rangeOf(parseSubnet(address))
    await dnsmasq.ensureDhcp({ ...this.#dhcpOf({ netns }), bridge, netns, range, netmask: netmaskOf(prefix) })
    return { netns, bridge, cidr: address }
  }

  /**
   * Gives an isolated network a place in the network of a guest that has an address of its own, given by nobody here:
   * it answers whom it finds there, and is not changed for that. The place is its gateway's, when that is known.
   * Idempotent; gone with the isolated network.
   */
  async joinIsolated(netns: string, guest: GuestAddress): Promise<void> {
    const { bridge, address } = await this.#isolatedIn(netns)
    const place = placeBeside(guest, parseSubnet(address))
    if (place !== undefined)
      await setNeighbour(this.#needs.host, bridge, { own: place, peer: guest.address }, { netns })
  }

  /** Removes an isolated network and ends every process inside, guests included. Idempotent. */
  async removeIsolated(name: string): Promise<void> {
    const netns = this.#names.netns(name)
    await dnsmasq.removeDhcp(this.#dhcpOf({ netns }))
    await removeNetns(this.#needs.host, netns)
    await this.#records.isolated.alter(name, () => undefined)
  }

  /** Addresses given out there. */
  async leases(where: Where): Promise<{ mac: string; ip: string }[]> {
    const leases = await dnsmasq.leasesOf(this.#dhcpOf(where))
    return leases.map(({ mac, ip }) => ({ mac, ip }))
  }

  /** The address a card was given, if it was. */
  async addressOf(mac: string, where: Where): Promise<string | undefined> {
    return (await this.leases(where)).find((lease) => lease.mac === mac.toLowerCase())?.ip
  }

  /**
   * A network of 256 addresses that neither the machine nor any recorded bridge uses.
   * @throws Fault `exhausted` when there is none left in 10.181.0.0/16.
   */
  async freeSubnet(): Promise<string> {
    const used = await this.#usedSubnets()
    // Two nodes that look at the same moment begin at different places.
    const start = Buffer.from(this.#needs.settings.instance).reduce((sum, byte) => sum * 31 + byte, 0)
    for (let number = 0; number < 255; number += 1) {
      const candidate = { base: SUBNETS.base + ((start + number) % 255) * 256, prefix: 24 }
      if (!used.some((subnet) => overlaps(subnet, candidate))) return formatSubnet(candidate)
    }
    throw new Fault('exhausted', `every network of ${formatSubnet(SUBNETS)} is in use on this machine`, {
      remedy: 'Remove bridges nobody needs, or name a network of your own.',
    })
  }

  /**
   * Removes all this node ever made on the machine's network, remembered or not, and gives forwarding its
   * old value back. Other nodes on the machine, and everybody else, keep theirs.
   */
  async removeEverything(): Promise<void> {
    const { host, settings, log } = this.#needs
    await dnsmasq.removeAllDhcp(settings.runDir)
    for (const netns of (await listNetns(host)).filter(this.#names.isOurNetns)) {
      log.info('removing network namespace', { netns })
      await removeNetns(host, netns)
    }
    for (const { name } of (await links(host)).filter(this.#names.isOurLink)) {
      log.info('removing link', { name })
      await deleteLink(host, name)
    }
    await forgetForwarding(this.#parts())
    const { bridges, isolated, taps } = this.#records
    for (const kind of [bridges, isolated, taps]) {
      for (const { name } of await kind.list()) await kind.alter(name, () => undefined)
    }
  }

  #parts() {
    return { host: this.#needs.host, names: this.#names, records: this.#records }
  }

  /** Files of a DHCP service are named after its namespace, or else after its bridge. */
  #dhcpOf({ bridge, netns }: Where): { runDir: string; label: string } {
    const label = netns ?? bridge
    if (label === undefined) throw new Fault('invalid', 'neither a bridge nor an isolated network is named')
    return { runDir: this.#needs.settings.runDir, label }
  }

  async #serve(
    bridge: string,
    { address, nat }: BridgeRecord,
    range: readonly [string, string],
    servers: readonly string[],
  ): Promise<void> {
    const [router = '', prefix] = address.split('/')
    await dnsmasq.ensureDhcp({
      ...this.#dhcpOf({ bridge }),
      bridge,
      range,
      netmask: netmaskOf(Number(prefix)),
      router: nat ? router : undefined,
      nameServers: servers,
    })
  }

  /** Before anything is written down: removing what is written down must never remove somebody else's link. */
  async #refuseForeign(name: string): Promise<void> {
    const link = await findLink(this.#needs.host, name)
    if (!link || this.#names.isOurLink(link)) return
    throw new Fault('conflict', `the network interface '${name}' exists and is not ours`, {
      remedy: 'Remove or rename it, or give this node another instance name.',
    })
  }

  async #isolatedIn(netns: string): Promise<IsolatedRecord> {
    const found = (await this.#records.isolated.list()).find(({ value }) => value.netns === netns)
    if (!found || !(await netnsExists(netns))) throw new Fault('missing', `isolated network '${netns}' does not exist`)
    return found.value
  }

  async #usedSubnets(): Promise<Subnet[]> {
    const { host } = this.#needs
    const [byRoute, byAddress, byRecord] = [
      await routes(host),
      await addresses(host),
      await this.#records.bridges.list(),
    ]
    const texts = [
      ...byRoute.map(({ destination }) => destination).filter((text) => text !== 'default'),
      ...byAddress.filter(({ family }) => family === 'inet').map(({ address, prefix }) => `${address}/${prefix}`),
      ...byRecord.map(({ value }) => value.address),
    ]
    return texts.map(parseSubnet)
  }
}

/** What a wish means in numbers. */
function plan({ name, cidr, dhcp = {} }: BridgeWish): {
  address: string
  range: readonly [string, string] | undefined
} {
  if (!/^[a-zA-Z][a-zA-Z0-9_]{0,14}$/.test(name)) throw new Fault('invalid', `'${name}' is no name for a bridge`)
  const subnet = parseSubnet(cidr)
  if (subnet.prefix > 29 || subnet.prefix < 8) {
    throw new Fault('invalid', `the network ${cidr} of bridge '${name}' is not between /8 and /29`)
  }
  const given = parseAddress(cidr.split('/')[0] ?? '')
  const own = given === undefined || given === subnet.base ? addressIn(subnet, 1) : (cidr.split('/')[0] ?? '')
  if (dhcp === false) return { address: `${own}/${subnet.prefix}`, range: undefined }
  const range = dhcp.range ?? rangeOf(subnet).range
  const [first = -1, last = -1] = range.map(parseAddress)
  if (!contains(subnet, first ?? -1) || !contains(subnet, last ?? -1) || Number(first) > Number(last)) {
    throw new Fault('invalid', `the DHCP range ${range.join(' to ')} of bridge '${name}' does not lie in ${cidr}`)
  }
  return { address: `${own}/${subnet.prefix}`, range }
}

/** The first fifth stays free for addresses given by hand, the bridge's own among them. */
function rangeOf(subnet: Subnet): { prefix: number; range: readonly [string, string] } {
  const first = Math.max(2, Math.floor(2 ** (32 - subnet.prefix) / 5))
  return { prefix: subnet.prefix, range: [addressIn(subnet, first), addressIn(subnet, -2)] }
}
