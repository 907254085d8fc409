/**
 * What may be declared, and what goes together. A mistake names its parameter, as everywhere; one that lies between two
 * interfaces is found when the second is staged, and looked for once more before anything is applied.
 */
import { isIPv4 } from 'node:net'
import type { Errors } from '#base/schema/check.ts'
import { contains, parseAddress, parseSubnet } from '../subnet.ts'
import { aliasedLink, type Declared, membersOf, parseVids, vlanOf } from './declared.ts'
import type { NetworkState } from './state.ts'

/** What the kernel can hold. */
const longestName = 15
const mostInterfaces = 500
const hashingModes = ['balance-xor', '802.3ad']

export const bondModes = [
  'balance-rr',
  'active-backup',
  'balance-xor',
  'broadcast',
  '802.3ad',
  'balance-tlb',
  'balance-alb',
] as const

/** Which parameters make sense for which type, beside those all of them have. */
const ofType: Readonly<Record<Declared['type'], readonly (keyof Declared)[]>> = {
  bridge: ['bridge_ports', 'bridge_vlan_aware', 'bridge_vids'],
  bond: ['slaves', 'bond_mode', 'bond_xmit_hash_policy', 'bond-primary'],
  eth: [],
  vlan: ['vlan-id', 'vlan-raw-device'],
  alias: [],
}
const special = Object.values(ofType).flat()

/** Mistakes in one interface, whatever else is declared. */
export function ownErrors(wish: Declared): Errors {
  const errors: Errors = { ...nameErrors(wish), ...addressErrors(wish) }
  for (const name of special) {
    if (wish[name] !== undefined && !ofType[wish.type].includes(name)) {
      errors[name] = `an interface of type '${wish.type}' has no '${name}'`
    }
  }
  if (wish.type === 'alias' && wish.mtu !== undefined) errors.mtu = 'an alias has the MTU of its interface'
  if (wish.bridge_vids !== undefined && !parseVids(wish.bridge_vids)) {
    errors.bridge_vids = `'${wish.bridge_vids}' is no list of VLANs such as '2-4094' or '10 20-30'`
  } else if (wish.bridge_vids !== undefined && wish.bridge_vlan_aware !== true) {
    errors.bridge_vids = 'only a bridge with bridge_vlan_aware tells VLANs apart'
  }
  Object.assign(errors, wish.type === 'bond' ? bondErrors(wish) : {}, wish.type === 'vlan' ? vlanErrors(wish) : {})
  return errors
}

function nameErrors({ iface, type }: Declared): Errors {
  if (iface === 'lo') return { iface: 'the loopback interface belongs to the machine' }
  if (iface.length > longestName) return { iface: `the name of an interface has at most ${longestName} characters` }
  if (/^hk[a-z0-9]*\d$/.test(iface)) return { iface: 'names that begin with hk are given by the node itself' }
  if (type === 'alias' && !iface.includes(':')) return { iface: "an alias is called 'interface:number'" }
  if (type !== 'alias' && iface.includes(':')) return { iface: `only an alias has a ':' in its name` }
  if (type !== 'vlan' && type !== 'eth' && iface.includes('.')) return { iface: "only a VLAN has a '.' in its name" }
  return {}
}

function addressErrors({ cidr, gateway, cidr6, gateway6, type, iface }: Declared): Errors {
  const errors: Errors = {}
  if (cidr !== undefined) {
    const [address = '', prefix] = [cidr.split('/')[0], Number(cidr.split('/')[1])]
    const subnet = parseSubnet(cidr)
    if (prefix < 1) errors.cidr = `'${cidr}' is no network an interface can be in`
    else if (prefix < 31 && parseAddress(address) === subnet.base) {
      errors.cidr = `'${cidr}' is the network itself: give the address of '${iface}' in it`
    }
  }
  if (gateway !== undefined) {
    const isReached = cidr !== undefined && contains(parseSubnet(cidr), parseAddress(gateway) ?? -1)
    if (!isReached) errors.gateway = `the gateway '${gateway}' is not in the network of ${cidr ?? 'an address'}`
    if (type === 'alias') errors.gateway = 'give the gateway with the interface, not with its alias'
  }
  if (gateway6 !== undefined && cidr6 === undefined) errors.gateway6 = 'a gateway needs an address, cidr6'
  return errors
}

function bondErrors(wish: Declared): Errors {
  const { slaves = [], bond_mode: mode = 'balance-rr', bond_xmit_hash_policy: policy } = wish
  const errors: Errors = {}
  const primary = wish['bond-primary']
  if (!bondModes.some((known) => known === mode)) errors.bond_mode = `'${mode}' is a mode of Open vSwitch`
  if (policy !== undefined && !hashingModes.includes(mode)) {
    errors.bond_xmit_hash_policy = `only bonds of mode ${hashingModes.join(' and ')} have a policy`
  }
  if (primary !== undefined && mode !== 'active-backup') {
    errors['bond-primary'] = 'only a bond of mode active-backup has a primary'
  } else if (primary !== undefined && !slaves.includes(primary)) {
    errors['bond-primary'] = `'${primary}' is not among the slaves`
  }
  if (slaves.length === 0) errors.slaves = 'a bond needs at least one slave'
  return errors
}

function vlanErrors(wish: Declared): Errors {
  const { id, parent } = vlanOf(wish)
  const errors: Errors = {}
  if (id === undefined || id < 1 || id > 4094) errors['vlan-id'] = 'a VLAN has a number from 1 to 4094'
  if (parent === undefined) errors['vlan-raw-device'] = 'say which interface the VLAN rides on'
  return errors
}

/**
 * Mistakes between `wish` and the other interfaces.
 * @param all every declared one, `wish` among them
 * @param now links that are there and stay
 */
export function mutualErrors(wish: Declared, all: readonly Declared[], now: NetworkState): Errors {
  const errors: Errors = {}
  const others = all.filter(({ iface }) => iface !== wish.iface)
  const isThere = (name: string) =>
    others.some(({ iface }) => iface === name) || (name !== 'lo' && now[name] !== undefined)
  for (const [key, members] of [
    ['bridge_ports', wish.bridge_ports ?? []],
    ['slaves', wish.slaves ?? []],
  ] as const) {
    for (const member of members) {
      const taker = others.find((other) => membersOf(other).includes(member))
      const shape = others.find(({ iface }) => iface === member)?.type
      if (taker) errors[key] = `'${member}' is already taken by '${taker.iface}'`
      else if (member === wish.iface || !isThere(member)) errors[key] = `interface '${member}' does not exist`
      else if (shape === 'bridge' || shape === 'alias') errors[key] = `'${member}' is a ${shape} and cannot be taken in`
    }
    if (new Set(members).size < members.length) errors[key] = 'an interface is named twice'
  }
  const below = wish.type === 'vlan' ? vlanOf(wish).parent : wish.type === 'alias' ? aliasedLink(wish) : undefined
  if (below !== undefined && (below === wish.iface || !isThere(below))) {
    errors[wish.type === 'vlan' ? 'vlan-raw-device' : 'iface'] = `interface '${below}' does not exist`
  }
  const { id, parent } = vlanOf(wish)
  const twin = others.find(
    (other) => other.type === 'vlan' && vlanOf(other).id === id && vlanOf(other).parent === parent,
  )
  if (wish.type === 'vlan' && twin) errors['vlan-id'] = `VLAN ${id} of '${parent}' is '${twin.iface}'`
  if (wish.type === 'eth' && !now[wish.iface]) errors.iface = `there is no network card '${wish.iface}' in this machine`
  for (const key of ['gateway', 'gateway6'] as const) {
    const other = others.find((one) => one[key] !== undefined)
    if (wish[key] !== undefined && other) {
      errors[key] = `Default gateway already exists on interface '${other.iface}'.`
    }
  }
  for (const key of ['cidr', 'cidr6'] as const) {
    const other = others.find((one) => addressIn(one[key]) === addressIn(wish[key]))
    if (wish[key] !== undefined && other) errors[key] = `the address is already in use on '${other.iface}'`
  }
  if (all.length > mostInterfaces) errors.iface = `a node has at most ${mostInterfaces} interfaces`
  return errors
}

const addressIn = (cidr: string | undefined) => cidr?.split('/')[0]

/** What is wrong with the whole, interface by interface; looked for right before it is applied. */
export function allErrors(all: readonly Declared[], now: NetworkState): string[] {
  return all.flatMap((wish) => {
    const errors = { ...mutualErrors(wish, all, now), ...ownErrors(wish) }
    const taker = all.find((other) => membersOf(other).includes(wish.iface))
    const isAddressed = wish.cidr !== undefined || wish.cidr6 !== undefined
    if (taker && isAddressed) {
      errors.cidr = `'${wish.iface}' is taken in by '${taker.iface}', which must have the address instead`
    }
    return Object.entries(errors).map(([key, rule]) => `${wish.iface}: ${key}: ${rule}`)
  })
}

/** `255.255.255.0` or `24`, as a prefix. */
export function prefixOf(mask: string): number | undefined {
  if (/^\d{1,2}$/.test(mask)) return Number(mask) <= 32 ? Number(mask) : undefined
  if (!isIPv4(mask)) return undefined
  const number = parseAddress(mask) ?? 0
  const ones = 32 - Math.log2(2 ** 32 - number)
  return Number.isInteger(ones) ? ones : undefined
}
