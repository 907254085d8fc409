/**
 * The way from one state of the network to another, as commands of iproute2 in their order.
 *
 * Pure: decided here, done in `change.ts`. What carries on is changed in place, so that guests stay plugged into their
 * bridge; only what the kernel cannot change (a VLAN's number, a bond's mode) is made anew. Whoever calls looks again
 * afterwards and calls again, because the kernel takes some things away by itself (a link that goes down loses its
 * routes): no step means that the network is as wanted.
 */
import {
  type AddressState,
  canonical,
  type LinkState,
  type NetworkState,
  type RouteState,
  type VlanRange,
} from './state.ts'

export interface Step {
  readonly program: 'ip' | 'bridge' | 'sysctl'
  readonly words: readonly string[]
}

interface Ways {
  readonly now: NetworkState
  readonly wanted: NetworkState
  /** Links that are removed first, to be made again or not. */
  readonly removed: ReadonlySet<string>
}

const made = new Set(['bridge', 'bond', 'vlan'])

export function stepsBetween(now: NetworkState, wanted: NetworkState): Step[] {
  const ways: Ways = { now, wanted, removed: removedLinks(now, wanted) }
  const fresh = Object.values(wanted).filter((link) => isMade(link) && !isKept(link.name, ways))
  const present = Object.values(wanted).filter((link) => isKept(link.name, ways) || isMade(link))
  return [
    ...present.flatMap((link) => detach(link, ways)),
    ...present.flatMap((link) => takeAway(link, ways)),
    ...removals(ways),
    ...fresh.toSorted(byDepth(wanted)).flatMap(creation),
    ...present.flatMap((link) => properties(link, ways)),
    ...present.flatMap((link) => attach(link, ways)),
    ...sizes(present.toSorted(byDepth(wanted)), ways),
    ...present.flatMap((link) => primary(link, ways)),
    ...present.flatMap((link) => vlanTable(link, ways)),
    ...present.toSorted(membersFirst).flatMap((link) => power(link, ways)),
    ...present.flatMap((link) => addressesOf(link, ways)),
    ...present.flatMap((link) => routesOf(link, ways)),
  ]
}

const ip = (...words: string[]): Step => ({ program: 'ip', words })
const isMade = ({ kind }: LinkState) => kind !== undefined && made.has(kind)
const isKept = (name: string, { now, removed }: Ways) => now[name] !== undefined && !removed.has(name)
const keptOf = (name: string, ways: Ways): LinkState | undefined => (isKept(name, ways) ? ways.now[name] : undefined)

function removedLinks(now: NetworkState, wanted: NetworkState): Set<string> {
  const removed = new Set<string>()
  for (const link of Object.values(now)) {
    const next = wanted[link.name]
    if (isMade(link) && (!next || isAnother(link, next))) removed.add(link.name)
  }
  // What rides on a removed link vanishes with it.
  for (let size = -1; size !== removed.size;) {
    size = removed.size
    for (const { name, vlan } of Object.values(now)) if (vlan && removed.has(vlan.parent)) removed.add(name)
  }
  return removed
}

/** The kernel cannot make the one of the other. */
function isAnother(link: LinkState, next: LinkState): boolean {
  return (
    link.kind !== next.kind ||
    link.bond?.mode !== next.bond?.mode ||
    link.vlan?.id !== next.vlan?.id ||
    link.vlan?.parent !== next.vlan?.parent
  )
}

function detach({ name, master }: LinkState, ways: Ways): Step[] {
  const before = keptOf(name, ways)?.master
  const isLeaving = before !== undefined && before !== master && !ways.removed.has(before)
  return isLeaving ? [ip('link', 'set', 'dev', name, 'nomaster')] : []
}

function takeAway({ name, addresses, routes }: LinkState, ways: Ways): Step[] {
  const before = keptOf(name, ways)
  if (!before) return []
  return [
    ...before.routes.filter((route) => !has(routes, route)).map((route) => routeStep('delete', name, route)),
    ...before.addresses
      .filter((address) => !has(addresses, address))
      .map((address) => addressStep('delete', name, address)),
  ]
}

function has<T extends object>(list: readonly T[], item: T): boolean {
  return list.some((one) => canonical(one) === canonical(item))
}

function removals({ now, removed }: Ways): Step[] {
  const links = Object.values(now).filter(({ name }) => removed.has(name))
  return links.toSorted((a, b) => byDepth(now)(b, a)).map(({ name }) => ip('link', 'delete', 'dev', name))
}

/** What rides on another link comes after it. */
function byDepth(state: NetworkState): (a: LinkState, b: LinkState) => number {
  const depth = ({ kind, vlan }: LinkState, limit = 8): number => {
    const below = vlan && limit > 0 ? state[vlan.parent] : undefined
    return kind === 'vlan' ? 2 + (below ? depth(below, limit - 1) : 0) : kind === 'bridge' ? 1 : 0
  }
  return (a, b) => depth(a) - depth(b)
}

function creation({ name, kind, mac, bridge, bond, vlan }: LinkState): Step[] {
  if (kind === 'vlan' && vlan) {
    return [ip('link', 'add', 'link', vlan.parent, 'name', name, 'type', 'vlan', 'id', String(vlan.id))]
  }
  if (kind === 'bond' && bond) {
    const { mode, hashPolicy } = bond
    return [
      ip('link', 'add', 'name', name, 'type', 'bond', 'mode', mode, 'miimon', '100', 'xmit_hash_policy', hashPolicy),
    ]
  }
  const address = mac === '' ? [] : ['address', mac]
  const filtering = bridge?.isVlanAware === true ? ['vlan_filtering', '1'] : []
  // No spanning tree and no delay: a port carries frames from its first moment, DHCP included.
  const options = ['type', 'bridge', 'stp_state', '0', 'forward_delay', '0', ...filtering]
  return [
    ip('link', 'add', 'name', name, ...address, ...options),
    // A guest that announces itself as a router would else become the machine's default route.
    { program: 'sysctl', words: [`net/ipv6/conf/${name}/accept_ra`, '0'] },
  ]
}

function properties({ name, alias, bridge, bond }: LinkState, ways: Ways): Step[] {
  const before = keptOf(name, ways)
  const steps: Step[] = []
  if (alias !== undefined && alias !== before?.alias) steps.push(ip('link', 'set', 'dev', name, 'alias', alias))
  if (before && bridge && bridge.isVlanAware !== before.bridge?.isVlanAware) {
    steps.push(ip('link', 'set', 'dev', name, 'type', 'bridge', 'vlan_filtering', bridge.isVlanAware ? '1' : '0'))
  }
  if (before && bond && bond.hashPolicy !== before.bond?.hashPolicy) {
    steps.push(ip('link', 'set', 'dev', name, 'type', 'bond', 'xmit_hash_policy', bond.hashPolicy))
  }
  return steps
}

const isNewcomer = ({ name, master }: LinkState, ways: Ways) => {
  const before = keptOf(name, ways)
  return before?.master !== master || ways.removed.has(before?.master ?? '')
}

function attach(link: LinkState, ways: Ways): Step[] {
  const { name, master } = link
  if (master === undefined || !ways.wanted[master] || !isNewcomer(link, ways)) return []
  const joining = ip('link', 'set', 'dev', name, 'master', master)
  // A bond takes a link only while that is down.
  return ways.wanted[master]?.kind === 'bond' ? [ip('link', 'set', 'dev', name, 'down'), joining] : [joining]
}

/** A link is never larger than what it rides on: smaller ones shrink from the top, larger ones grow from below. */
function sizes(fromBelow: readonly LinkState[], ways: Ways): Step[] {
  const changing = fromBelow.filter(({ name, mtu }) => mtu !== undefined && mtu !== keptOf(name, ways)?.mtu)
  const grows = ({ name, mtu = 0 }: LinkState) => mtu > (keptOf(name, ways)?.mtu ?? 0)
  const inOrder = [...changing.filter((link) => !grows(link)).toReversed(), ...changing.filter(grows)]
  return inOrder.map(({ name, mtu }) => ip('link', 'set', 'dev', name, 'mtu', String(mtu)))
}

function primary({ name, bond }: LinkState, ways: Ways): Step[] {
  if (bond?.primary === undefined || bond.primary === keptOf(name, ways)?.bond?.primary) return []
  return [ip('link', 'set', 'dev', name, 'type', 'bond', 'primary', bond.primary)]
}

/** What the kernel gives every port of a bridge that tells VLANs apart. */
const given: readonly VlanRange[] = [{ first: 1, last: 1, isOwn: true }]

function vlanTable(link: LinkState, ways: Ways): Step[] {
  const { name, vlans, kind, master } = link
  if (vlans === undefined || (kind !== 'bridge' && master === undefined)) return []
  const before = (kind === 'bridge' || !isNewcomer(link, ways) ? keptOf(name, ways)?.vlans : undefined) ?? given
  const self = kind === 'bridge' ? ['self'] : []
  const step = (verb: 'add' | 'del', { first, last, isOwn }: VlanRange): Step => {
    const vid = first === last ? String(first) : `${first}-${last}`
    const own = verb === 'add' && isOwn ? ['pvid', 'untagged'] : []
    return { program: 'bridge', words: ['vlan', verb, 'dev', name, 'vid', vid, ...own, ...self] }
  }
  return [
    ...before.filter((range) => !has(vlans, range)).map((range) => step('del', range)),
    ...vlans.filter((range) => !has(before, range)).map((range) => step('add', range)),
  ]
}

const membersFirst = (a: LinkState, b: LinkState) => Number(a.master === undefined) - Number(b.master === undefined)

function power(link: LinkState, ways: Ways): Step[] {
  const { name, isUp, master } = link
  const wasPutDown = master !== undefined && ways.wanted[master]?.kind === 'bond' && isNewcomer(link, ways)
  const before = wasPutDown ? false : (keptOf(name, ways)?.isUp ?? false)
  return isUp === before ? [] : [ip('link', 'set', 'dev', name, isUp ? 'up' : 'down')]
}

function addressesOf({ name, addresses }: LinkState, ways: Ways): Step[] {
  const before = keptOf(name, ways)?.addresses ?? []
  return addresses.filter((address) => !has(before, address)).map((address) => addressStep('replace', name, address))
}

function addressStep(verb: 'delete' | 'replace', name: string, { cidr, label }: AddressState): Step {
  const named = verb === 'replace' && label !== undefined ? ['label', label] : []
  return ip('address', verb, cidr, 'dev', name, ...named)
}

function routesOf({ name, routes }: LinkState, ways: Ways): Step[] {
  const before = keptOf(name, ways)?.routes ?? []
  return routes.filter((route) => !has(before, route)).map((route) => routeStep('replace', name, route))
}

function routeStep(
  verb: 'delete' | 'replace',
  name: string,
  { family, destination, gateway, metric }: RouteState,
): Step {
  return ip(
    'route',
    verb,
    // Its family must show.
    destination === 'default' ? (family === 'inet' ? '0.0.0.0/0' : '::/0') : destination,
    ...(gateway === undefined ? [] : ['via', gateway]),
    'dev',
    name,
    ...(metric === undefined ? [] : ['metric', String(metric)]),
    ...(verb === 'replace' ? ['proto', 'static'] : []),
  )
}
