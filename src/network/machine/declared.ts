/**
 * Interfaces as they are declared: what people and clients write, in the words of the wire.
 *
 * The store keeps two lists, the one in force and the one staged. What the kernel shows (cards, bridges of others) is
 * in neither until somebody declares it.
 */
import { splitList } from '#base/schema/formats.ts'
import { array, boolean, enumOf, integer, object, optional, type Static, string } from '#base/schema/schema.ts'

export const declaredTypes = ['bridge', 'bond', 'eth', 'vlan', 'alias'] as const
export type DeclaredType = (typeof declaredTypes)[number]

const name = string({ maxLength: 20 })
const declared = object({
  iface: name,
  type: enumOf(declaredTypes),
  autostart: optional(boolean()),
  cidr: optional(string({ maxLength: 32 })),
  gateway: optional(string({ maxLength: 32 })),
  cidr6: optional(string({ maxLength: 64 })),
  gateway6: optional(string({ maxLength: 64 })),
  mtu: optional(integer()),
  comments: optional(string({ maxLength: 4096 })),
  comments6: optional(string({ maxLength: 4096 })),
  bridge_ports: optional(array(name)),
  bridge_vlan_aware: optional(boolean()),
  bridge_vids: optional(string({ maxLength: 1024 })),
  slaves: optional(array(name)),
  bond_mode: optional(string({ maxLength: 32 })),
  bond_xmit_hash_policy: optional(string({ maxLength: 32 })),
  'bond-primary': optional(name),
  'vlan-id': optional(integer()),
  'vlan-raw-device': optional(name),
})
export type Declared = Static<typeof declared>

export const declaredList = object({ interfaces: array(declared) })

/** The VLAN a declared one carries, and the link it rides on: said, or in its name (`eth0.5`, `vlan5`). */
export function vlanOf({ iface, ...said }: Declared): { id: number | undefined; parent: string | undefined } {
  const [, parent, dotted] = /^(.+)\.(\d+)$/.exec(iface) ?? []
  const named = dotted ?? /^vlan(\d+)$/.exec(iface)?.[1]
  return {
    id: said['vlan-id'] ?? (named === undefined ? undefined : Number(named)),
    parent: said['vlan-raw-device'] ?? parent,
  }
}

/** The link an alias puts its addresses on. */
export function aliasedLink({ iface }: Declared): string {
  return iface.split(':')[0] ?? iface
}

/** All VLANs a guest may ask for. */
export const everyVlan = '2-4094'

/** `2-4094`, `10 20-30`: pairs of first and last. @returns nothing for what is no list of VLANs */
export function parseVids(text: string): { first: number; last: number }[] | undefined {
  const ranges = splitList(text).map((part) => {
    const [, first, last = first] = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part) ?? []
    return { first: Number(first), last: Number(last) }
  })
  const isGood = ranges.every(({ first, last }) => first >= 1 && last <= 4094 && first <= last)
  return isGood && ranges.length > 0 ? ranges : undefined
}

/** Links a declared one takes in: ports of a bridge, members of a bond. */
export function membersOf({ bridge_ports, slaves }: Declared): readonly string[] {
  return bridge_ports ?? slaves ?? []
}
