/** Network cards of containers: `name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=dhcp`. */
import { MiB } from '#base/bytes.ts'
import type { Errors } from '#base/schema/check.ts'
import type { Random } from '#base/random.ts'
import { macAddress } from '#base/random.ts'
import { printPropertyString, readPropertyString } from '#base/schema/property-string.ts'
import { boolean, enumOf, integer, number, optional, string } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'

export const nicCount = 32

const link = /[-_.\w]+/

export const nicFormat: PropertyFormat = {
  name: { schema: string({ description: 'Name inside.', pattern: link, maxLength: 15 }) },
  bridge: { schema: optional(string({ description: 'Bridge to join.', pattern: link, maxLength: 15 })) },
  firewall: { schema: optional(boolean({ description: 'The firewall rules of the guest hold for this card.' })) },
  gw: { schema: optional(string({ description: 'Way out, IPv4.', format: 'ipv4', maxLength: 15 })) },
  gw6: { schema: optional(string({ description: 'Way out, IPv6.', format: 'ipv6', maxLength: 45 })) },
  'host-managed': {
    schema: optional(boolean({ description: 'The node gives it its addresses, not its own system.' })),
  },
  hwaddr: { schema: optional(string({ description: 'MAC address.', format: 'mac-addr', maxLength: 17 })) },
  ip: {
    schema: optional(string({ description: 'Address, dhcp or manual.', format: 'pve-ipv4-config', maxLength: 18 })),
  },
  ip6: {
    schema: optional(
      string({ description: 'Address, auto, dhcp or manual.', format: 'pve-ipv6-config', maxLength: 49 }),
    ),
  },
  link_down: { schema: optional(boolean({ description: 'Unplug the cable.' })) },
  mtu: { schema: optional(integer({ description: 'MTU.', minimum: 64, maximum: 65_535 })) },
  rate: { schema: optional(number({ description: 'Limit in MB per second.', minimum: 0, maximum: 1e6 })) },
  tag: { schema: optional(integer({ description: 'VLAN.', minimum: 1, maximum: 4094 })) },
  trunks: { schema: optional(string({ pattern: /\d+(?:-\d+)?(?:;\d+(?:-\d+)?)*/, maxLength: 400 })) },
  type: { schema: optional(enumOf(['veth'], { description: 'Kind of card.' })) },
}

export interface Nic {
  /** `net0` */
  readonly name: string
  /** `eth0` */
  readonly inside: string
  readonly mac: string
  readonly bridge: string | undefined
  readonly ip: string | undefined
  readonly gateway: string | undefined
  readonly ip6: string | undefined
  readonly gateway6: string | undefined
  readonly isHostManaged: boolean
  readonly isLinkDown: boolean
  readonly mtu: number | undefined
  readonly tag: number | undefined
  readonly trunks: string | undefined
  /** Bytes a second at most, each way; 0: no limit. */
  readonly rate: number | undefined
}

export function nicNames(options: Options): string[] {
  return Array.from({ length: nicCount }, (_, index) => `net${index}`).filter((name) => options[name] !== undefined)
}

export function nicOf(name: string, text: string): Nic {
  const values = readPropertyString(nicFormat, text, name)
  const textAt = (key: string) => (values[key] === undefined ? undefined : String(values[key]))
  return {
    name,
    inside: String(values.name),
    mac: String(values.hwaddr ?? ''),
    bridge: textAt('bridge'),
    ip: textAt('ip'),
    gateway: textAt('gw'),
    ip6: textAt('ip6'),
    gateway6: textAt('gw6'),
    isHostManaged: values['host-managed'] === true,
    isLinkDown: values.link_down === true,
    mtu: typeof values.mtu === 'number' ? values.mtu : undefined,
    tag: typeof values.tag === 'number' ? values.tag : undefined,
    trunks: textAt('trunks'),
    rate: typeof values.rate === 'number' ? values.rate * MiB : undefined,
  }
}

export function nicsOf(options: Options): Nic[] {
  return nicNames(options).map((name) => nicOf(name, options[name] ?? ''))
}

export function nicErrors(options: Options): Errors {
  const errors: Errors = {}
  const seen = new Map<string, string>()
  for (const name of nicNames(options)) {
    const nic = nicOf(name, options[name] ?? '')
    const isOutside = (nic.trunks ?? '1').split(/[;-]/).some((vlan) => Number(vlan) < 1 || Number(vlan) > 4094)
    if (seen.has(nic.inside)) errors[name] = `name: '${nic.inside}' is the name of ${seen.get(nic.inside)} already`
    else if (nic.inside === 'lo' || /^\.+$/.test(nic.inside))
      errors[name] = `name: '${nic.inside}' is no name for a card`
    else if (isOutside) errors[name] = `trunks: '${nic.trunks}' names VLANs beyond 1 to 4094`
    else if (nic.bridge === undefined && (nic.tag !== undefined || nic.trunks !== undefined)) {
      errors[name] = 'tag and trunks are for a card on a bridge: name it, bridge=vmbr0'
    } else if (nic.isHostManaged && [nic.ip, nic.ip6].some((one) => one === 'dhcp' || one === 'auto')) {
      errors[name] = 'host-managed: the node gives fixed addresses alone; leave it out, and the system inside asks'
    }
    seen.set(nic.inside, name)
  }
  return errors
}

/** The same card with a MAC address: its own, or a new one. `isFresh` forces a new one. */
export function withMac(name: string, text: string, random: Random, isFresh = false): string {
  const values = readPropertyString(nicFormat, text, name)
  const hwaddr = isFresh || values.hwaddr === undefined ? macAddress(random) : String(values.hwaddr).toUpperCase()
  return printPropertyString(nicFormat, { ...values, hwaddr, type: 'veth' })
}
