/**
 * From declared interfaces to the state the network shall have: what is there now, changed where somebody declared
 * something, and nowhere else. Links nobody declared (guests' taps, other software's bridges) stay as they are.
 *
 * A bridge, bond or VLAN is its declaration and nothing besides. A network card was there before anybody declared it: it
 * keeps the addresses the machine's own set-up gave it, until one is declared or it becomes part of a bridge or bond.
 */
import { Fault } from '#base/fault.ts'
import { contains, parseAddress, parseSubnet } from '../subnet.ts'
import { aliasedLink, type Declared, everyVlan, membersOf, parseVids, vlanOf } from './declared.ts'
import type { AddressState, LinkState, NetworkState, RouteState, VlanRange } from './state.ts'

export interface Wishes {
  readonly now: NetworkState
  /** In force until now. */
  readonly before: readonly Declared[]
  readonly after: readonly Declared[]
  /** The node's note on links it makes. */
  readonly alias: string
  readonly newMac: () => string
}

/** @throws Fault `conflict` when a link of a declared name is something else, or another node's */
export function wantedState(wishes: Wishes): NetworkState {
  const { now, before, after } = wishes
  const links: Record<string, LinkState> = { ...now }
  const inOrder = after.toSorted((a, b) => rank(a) - rank(b))
  for (const old of before) if (!after.some(({ iface }) => iface === old.iface)) withdraw(old, links)
  for (const wish of inOrder) {
    const link = declaredLink(wish, wishes, links)
    if (link) links[wish.iface] = link
  }
  for (const wish of inOrder) takeMembers(wish, wishes, links)
  for (const wish of inOrder) if (wish.type === 'alias') putAlias(wish, links)
  for (const wish of inOrder) if (wish.type === 'bridge') tellVlansApart(wish, after, links)
  return links
}

/** Cards, then what is made of them, then what rides on that. */
function rank({ type, iface }: Declared): number {
  return type === 'eth'
    ? 0
    : type === 'bond'
      ? 1
      : type === 'bridge'
        ? 2
        : type === 'vlan'
          ? 2 + iface.split('.').length
          : 99
}

/** Takes back what an interface that is no longer declared brought. */
function withdraw(old: Declared, links: Record<string, LinkState>): void {
  const name = old.type === 'alias' ? aliasedLink(old) : old.iface
  const link = links[name]
  if (!link) return
  if (old.type === 'eth' || old.type === 'alias') {
    links[name] = {
      ...link,
      addresses: addressesOf(link, old, undefined),
      routes: routesOf(link, old, undefined, link),
    }
    return
  }
  if (link.kind !== old.type) return
  delete links[name]
  for (const port of Object.values(links)) if (port.master === name) links[port.name] = released(port)
}

function released(link: LinkState): LinkState {
  const { master: _master, ...rest } = withoutVlans(link)
  return rest
}

function declaredLink(wish: Declared, wishes: Wishes, links: NetworkState): LinkState | undefined {
  const { iface, type } = wish
  const { now, before, alias, newMac } = wishes
  const old = before.find((one) => one.iface === iface)
  const there = now[iface]
  if (type === 'alias') return undefined
  if (type === 'eth') {
    if (!there) return undefined // A card that was taken out: nothing can be done, and nothing has to be.
    return { ...withMtu(there, wish, old), isUp: isUpAs(wish, there), ...placed(there, wish, old) }
  }
  if (there && there.kind !== type && old?.type === type) throw taken(iface, `a link of another kind`)
  if (there && !old && there.kind !== type) throw taken(iface, `${there.kind ?? 'a network card'}, not a ${type}`)
  if (there?.alias !== undefined && there.alias !== alias && there.alias.startsWith('hakobune/')) {
    throw taken(iface, 'made by another node on this machine')
  }
  const fresh: LinkState = {
    name: iface,
    kind: type,
    mac: macOf(wish, wishes.after, now) ?? newMac(),
    isUp: true,
    addresses: [],
    routes: [],
  }
  const base = there?.kind === type ? withMtu(there, wish, old) : withMtu(fresh, wish, undefined)
  const own = { ...base, alias, isUp: isUpAs(wish, there), ...placed(base, wish, old) }
  switch (type) {
    case 'bridge':
      return { ...own, bridge: { isVlanAware: wish.bridge_vlan_aware === true } }
    case 'bond':
      return {
        ...own,
        mac: there ? own.mac : '',
        bond: {
          mode: wish.bond_mode ?? 'balance-rr',
          hashPolicy: wish.bond_xmit_hash_policy ?? 'layer2',
          ...(wish['bond-primary'] === undefined ? {} : { primary: wish['bond-primary'] }),
        },
      }
    case 'vlan': {
      const { id = 0, parent = '' } = vlanOf(wish)
      const below = links[parent]
      if (!below) return undefined // It rides on a card that was taken out.
      return { ...own, mac: there ? own.mac : '', vlan: { id, parent } }
    }
    default:
      return type satisfies never
  }
}

/** One that does not start by itself is there, and waits for somebody to switch it on. */
function isUpAs({ autostart }: Declared, there: LinkState | undefined): boolean {
  return autostart === true || there?.isUp === true
}

function taken(iface: string, what: string): Fault {
  return new Fault('conflict', `the network interface '${iface}' exists and is ${what}`, {
    remedy: 'Remove or rename it, or choose another name.',
  })
}

/** A bridge is known by its first port's address, as if the port were still alone; without one it gets its own. */
function macOf(wish: Declared, all: readonly Declared[], now: NetworkState, depth = 0): string | undefined {
  if (wish.type !== 'bridge' && depth === 0) return ''
  const [first] = membersOf(wish)
  if (first === undefined || depth > 2) return undefined
  const member = all.find(({ iface }) => iface === first)
  const below = member?.type === 'bond' ? macOf(member, all, now, depth + 1) : undefined
  return now[first]?.mac ?? below
}

function withMtu(link: LinkState, wish: Declared, old: Declared | undefined): LinkState {
  const { mtu: _, ...rest } = link
  if (wish.mtu !== undefined) return { ...rest, mtu: wish.mtu }
  // It was declared, and is not any more: back to what Ethernet has.
  return old?.mtu === undefined ? rest : { ...rest, mtu: 1500 }
}

function placed(link: LinkState, wish: Declared, old: Declared | undefined): Pick<LinkState, 'addresses' | 'routes'> {
  const addresses = addressesOf(link, old, wish)
  return { addresses, routes: routesOf({ ...link, addresses }, old, wish, link) }
}

function addressesOf(link: LinkState, old: Declared | undefined, wish: Declared | undefined): AddressState[] {
  const isWhole = wish !== undefined && wish.type !== 'eth'
  const ofFamily = (family: AddressState['family'], declared: string | undefined, former: string | undefined) => {
    if (declared !== undefined) return [{ family, cidr: declared }]
    return isWhole ? [] : link.addresses.filter((one) => one.family === family && one.cidr !== former)
  }
  return [...ofFamily('inet', wish?.cidr, old?.cidr), ...ofFamily('inet6', wish?.cidr6, old?.cidr6)]
}

function routesOf(
  link: LinkState,
  old: Declared | undefined,
  wish: Declared | undefined,
  before: LinkState,
): RouteState[] {
  const fresh = (['inet', 'inet6'] as const).flatMap((family): RouteState[] => {
    const gateway = family === 'inet' ? wish?.gateway : wish?.gateway6
    return gateway === undefined ? [] : [{ family, destination: 'default', gateway }]
  })
  const formerly = [old?.gateway, old?.gateway6].filter((gateway) => gateway !== undefined)
  const kept = before.routes.filter(({ family, destination, gateway }) => {
    const isReplaced = destination === 'default' && fresh.some((route) => route.family === family)
    const isWithdrawn = destination === 'default' && gateway !== undefined && formerly.includes(gateway)
    return !isReplaced && !isWithdrawn && isReachable(gateway, family, link.addresses)
  })
  return [...kept, ...fresh]
}

function isReachable(
  gateway: string | undefined,
  family: 'inet' | 'inet6',
  addresses: readonly AddressState[],
): boolean {
  const own = addresses.filter((address) => address.family === family)
  if (gateway === undefined || family === 'inet6') return own.length > 0
  const number = parseAddress(gateway)
  return number === undefined || own.some(({ cidr }) => contains(parseSubnet(cidr), number))
}

/** Joins ports and slaves to what takes them, without addresses of their own; lets go of those no longer named. */
function takeMembers(wish: Declared, { before }: Wishes, links: Record<string, LinkState>): void {
  const members = membersOf(wish)
  const former = before.flatMap((old) => (old.iface === wish.iface ? membersOf(old) : []))
  for (const name of former) {
    const link = links[name]
    if (link && !members.includes(name) && link.master === wish.iface) links[name] = released(link)
  }
  for (const name of members) {
    const link = links[name]
    if (!link || !links[wish.iface]) continue
    // A slave's MTU is its bond's.
    const { mtu, ...rest } = released(link)
    const size = wish.type === 'bond' || mtu === undefined ? {} : { mtu }
    links[name] = { ...rest, ...size, master: wish.iface, isUp: true, addresses: [], routes: [] }
  }
}

function putAlias(wish: Declared, links: Record<string, LinkState>): void {
  const name = aliasedLink(wish)
  const link = links[name]
  if (!link) return
  const more: AddressState[] = [
    ...(wish.cidr === undefined ? [] : [{ family: 'inet' as const, cidr: wish.cidr, label: wish.iface }]),
    ...(wish.cidr6 === undefined ? [] : [{ family: 'inet6' as const, cidr: wish.cidr6 }]),
  ]
  const others = link.addresses.filter(
    ({ cidr, label }) => label !== wish.iface && !more.some((one) => one.cidr === cidr),
  )
  links[name] = { ...link, addresses: [...others, ...more] }
}

const ownVlan: VlanRange = { first: 1, last: 1, isOwn: true }

/** Its ports carry what is asked for; the bridge itself what rides on it. A guest's tap has what its card says. */
function tellVlansApart(wish: Declared, all: readonly Declared[], links: Record<string, LinkState>): void {
  const isAware = wish.bridge_vlan_aware === true
  const bridge = links[wish.iface]
  if (!bridge) return
  const riding = all.flatMap((one) => {
    const { id, parent } = vlanOf(one)
    return one.type === 'vlan' && parent === wish.iface && id !== undefined ? [id] : []
  })
  const self = [ownVlan, ...riding.map((id): VlanRange => ({ first: id, last: id, isOwn: false }))]
  links[wish.iface] = isAware ? { ...bridge, vlans: self } : withoutVlans(bridge)
  const ranges = (parseVids(wish.bridge_vids ?? everyVlan) ?? []).map((range) => ({ ...range, isOwn: false }))
  const carried = [
    ownVlan,
    ...ranges.filter(({ last }) => last > 1).map((range) => ({ ...range, first: Math.max(2, range.first) })),
  ]
  for (const port of Object.values(links)) {
    if (port.master !== wish.iface) continue
    if (!isAware) links[port.name] = withoutVlans(port)
    else if (membersOf(wish).includes(port.name)) links[port.name] = { ...port, vlans: carried }
  }
}

function withoutVlans(link: LinkState): LinkState {
  const { vlans: _vlans, ...rest } = link
  return rest
}
