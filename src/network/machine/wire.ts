/** Interfaces in the words of the wire: what clients send, and what they read. */
import { invalid } from '#base/fault.ts'
import { splitList } from '#base/schema/formats.ts'
import { aliasedLink, type Declared, type DeclaredType, declaredTypes, membersOf, vlanOf } from './declared.ts'
import { prefixOf } from './rules.ts'
import type { LinkState, NetworkState } from './state.ts'

/** Checked parameters of a call, in types of JSON. */
export type WireParams = Readonly<Record<string, unknown>>

/** Parameters that are kept as they come. */
const plain = [
  'autostart',
  'cidr',
  'gateway',
  'cidr6',
  'gateway6',
  'mtu',
  'comments',
  'comments6',
  'bridge_vlan_aware',
  'bridge_vids',
  'bond_mode',
  'bond_xmit_hash_policy',
  'bond-primary',
  'vlan-id',
  'vlan-raw-device',
] as const
const lists = ['bridge_ports', 'slaves'] as const
/** Other names of what is kept once. */
const also: Readonly<Record<string, readonly string[]>> = {
  address: ['cidr'],
  netmask: ['cidr'],
  address6: ['cidr6'],
  netmask6: ['cidr6'],
}

/**
 * @param before the interface as it is declared, when it is changed: what is not given stays
 * @throws Fault `invalid` naming the parameter
 */
export function declaredFrom(iface: string, params: WireParams, before?: Declared): Declared {
  const type = declaredTypes.find((known) => known === params.type)
  if (!type) throw invalid({ type: typeComplaint(String(params.type)) })
  if (before && before.type !== type) {
    throw invalid({ type: `'${iface}' is a ${before.type}: delete it and create it anew to make it a ${type}` })
  }
  const wish: Record<string, unknown> = { ...before, iface, type }
  for (const name of deletedNames(params.delete)) delete wish[name]
  for (const name of plain) {
    if (params[name] === '' || params[name] === null) delete wish[name]
    else if (params[name] !== undefined) wish[name] = params[name]
  }
  for (const name of lists) if (typeof params[name] === 'string') wish[name] = splitList(params[name])
  Object.assign(
    wish,
    withNetmask(params, 'address', 'netmask', 'cidr'),
    withNetmask(params, 'address6', 'netmask6', 'cidr6'),
  )
  const ofSwitch = Object.keys(params).find((name) => name.startsWith('ovs_'))
  if (ofSwitch !== undefined) throw invalid({ [ofSwitch]: 'Open vSwitch is not supported' })
  for (const name of ['comments', 'comments6'] as const) {
    const text = wish[name]
    if (typeof text === 'string') wish[name] = text.replace(/\n+$/, '')
    if (wish[name] === '') delete wish[name]
  }
  // Every member was checked by the endpoint's schema, and the names are those of `Declared`.
  return wish as Declared
}

function typeComplaint(type: string): string {
  if (type.startsWith('OVS'))
    return 'Open vSwitch is not supported: a bridge with bridge_vlan_aware, a bond and VLANs do its work'
  return `interfaces of type '${type}' are not made here; there are ${declaredTypes.join(', ')}`
}

function deletedNames(list: unknown): string[] {
  const known: readonly string[] = [...plain, ...lists, ...Object.keys(also)]
  return splitList(typeof list === 'string' ? list : '').flatMap((name) => {
    if (!known.includes(name)) throw invalid({ delete: `an interface has no '${name}' that could be deleted` })
    return also[name] ?? [name]
  })
}

/** An address and its mask are another spelling of `cidr`. */
function withNetmask(params: WireParams, address: string, mask: string, cidr: string): Record<string, string> {
  const [given, size] = [params[address], params[mask]]
  if (given === undefined || params[cidr] !== undefined) return {}
  const prefix = typeof size === 'number' ? size : prefixOf(String(size as string))
  if (prefix === undefined) throw invalid({ [mask]: `'${String(size as string)}' is no netmask` })
  return { [cidr]: `${String(given as string)}/${prefix}` }
}

/** One row of the list of interfaces. Members of `T` are those of the endpoint's reply. */
export type WireInterface = Record<string, unknown> & { readonly iface: string; readonly type: DeclaredType }

/** @param priority its place in the list */
export function declaredToWire(wish: Declared, now: NetworkState, priority: number): WireInterface {
  const { iface, type, cidr, cidr6, comments, comments6, autostart, bridge_ports: _, slaves: __, ...rest } = wish
  const link = now[type === 'alias' ? aliasedLink(wish) : iface]
  return {
    ...rest,
    iface,
    type,
    priority,
    ...activity(link),
    ...(type === 'eth' && link ? { exists: true } : {}),
    ...(autostart === true ? { autostart } : {}),
    ...familyOf(cidr, cidr6),
    ...(comments === undefined ? {} : { comments: `${comments}\n` }),
    ...(comments6 === undefined ? {} : { comments6: `${comments6}\n` }),
    ...(type === 'bridge' ? { bridge_ports: membersOf(wish).join(' ') } : {}),
    ...(type === 'bond' ? { slaves: membersOf(wish).join(' '), bond_mode: wish.bond_mode ?? 'balance-rr' } : {}),
    ...(type === 'vlan' ? vlanToWire(wish) : {}),
  }
}

function vlanToWire(wish: Declared) {
  const { id, parent } = vlanOf(wish)
  return { 'vlan-id': id, 'vlan-raw-device': parent }
}

/** What the machine shows and nobody declared: its cards, and what other software made that a guest can be plugged into. */
export function observedToWire(link: LinkState, now: NetworkState, priority: number): WireInterface | undefined {
  const { name, kind, bridge, bond, vlan, addresses } = link
  const type = isCard(link) ? 'eth' : declaredTypes.find((known) => known === kind)
  if (!type) return undefined
  const first = (family: string) => addresses.find((address) => address.family === family)?.cidr
  const members = Object.values(now).filter(
    (other) => other.master === name && (isCard(other) || other.vlan || other.bond),
  )
  const names = members.map((member) => member.name).join(' ')
  return {
    iface: name,
    type,
    priority,
    ...activity(link),
    ...(type === 'eth' ? { exists: true } : {}),
    ...familyOf(first('inet'), first('inet6'), 'manual'),
    ...(bridge ? { bridge_ports: names, ...(bridge.isVlanAware ? { bridge_vlan_aware: true } : {}) } : {}),
    ...(bond ? { slaves: names, bond_mode: bond.mode } : {}),
    ...(vlan ? { 'vlan-id': vlan.id, 'vlan-raw-device': vlan.parent } : {}),
  }
}

const activity = (link: LinkState | undefined) => (link?.isUp === true ? { active: true } : {})

function familyOf(cidr: string | undefined, cidr6: string | undefined, method?: string) {
  const [address, netmask] = cidr?.split('/') ?? []
  const [address6, netmask6] = cidr6?.split('/') ?? []
  return {
    method: method ?? (cidr === undefined ? 'manual' : 'static'),
    method6: method ?? (cidr6 === undefined ? 'manual' : 'static'),
    families: cidr6 === undefined ? ['inet'] : ['inet', 'inet6'],
    ...(cidr === undefined ? {} : { cidr, address, netmask }),
    ...(cidr6 === undefined ? {} : { cidr6, address6, netmask6: Number(netmask6) }),
  }
}

/**
 * A network card, or what is one to this machine when it is itself a guest: a cable that leads out of it and is called
 * like a card.
 */
export function isCard({ name, kind, leadsOutside }: LinkState): boolean {
  if (name === 'lo') return false
  return kind === undefined || (leadsOutside === true && /^(?:eth\d|en[a-z0-9]|wl|ib)/.test(name))
}
