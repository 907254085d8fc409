/** Network cards: `virtio=BC:24:11:00:00:01,bridge=vmbr0`. */
import { MiB } from '#base/bytes.ts'
import type { Errors } from '#base/schema/check.ts'
import type { Random } from '#base/random.ts'
import { macAddress } from '#base/random.ts'
import { printPropertyString, readPropertyString } from '#base/schema/property-string.ts'
import { boolean, enumOf, integer, number, optional, string } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import { type DeviceSpec, deviceToArgv, keyed } from './argument.ts'
import type { MachineKind } from './machine.ts'
import { pciPlace } from './pci.ts'

export const nicCount = 32

const aliasedModels =
  'e1000 e1000-82540em e1000-82544gc e1000-82545em e1000e i82551 i82557b i82559er ne2k_isa ne2k_pci pcnet rtl8139 virtio vmxnet3'.split(
    ' ',
  )
const mac = string({ format: 'mac-addr' })

export const nicFormat: PropertyFormat = {
  model: { schema: enumOf(aliasedModels, { description: 'Kind of card.' }), isDefaultKey: true },
  macaddr: { schema: optional(mac) },
  ...Object.fromEntries(aliasedModels.map((name) => [name, { schema: mac, alias: 'macaddr', keyAlias: 'model' }])),
  bridge: {
    schema: optional(
      string({
        description: 'Bridge to join; without one, address translation.',
        format: 'pve-bridge-id',
        maxLength: 15,
      }),
    ),
  },
  firewall: { schema: optional(boolean({ description: 'The firewall rules of the guest hold for this card.' })) },
  link_down: { schema: optional(boolean({ description: 'Unplug the cable.' })) },
  mtu: {
    schema: optional(
      integer({ description: 'MTU told to a virtio card; 1 is the bridge’s.', minimum: 1, maximum: 65_520 }),
    ),
  },
  queues: { schema: optional(integer({ minimum: 0, maximum: 64 })) },
  rate: { schema: optional(number({ description: 'Limit in MB per second.', minimum: 0 })) },
  tag: { schema: optional(integer({ description: 'VLAN.', minimum: 1, maximum: 4094 })) },
  trunks: { schema: optional(string({ pattern: /\d+(?:-\d+)?(?:;\d+(?:-\d+)?)*/, maxLength: 400 })) },
}

export interface Nic {
  readonly name: string
  readonly model: string
  readonly mac: string
  readonly bridge: string | undefined
  readonly isLinkDown: boolean
  readonly mtu: number | undefined
  /** VLAN; absent: none, or the guest's own choice. */
  readonly tag: number | undefined
  /** VLANs it may use with their tags, `10;20-30`. */
  readonly trunks: string | undefined
  /** Bytes a second at most, each way; 0: no limit. */
  readonly rate: number | undefined
}

/** `net0`, `net1`, … as present, in numerical order. */
export function nicNames(options: Options): string[] {
  return Array.from({ length: nicCount }, (_, index) => `net${index}`).filter((name) => options[name] !== undefined)
}

export function nicOf(name: string, text: string): Nic {
  const values = readPropertyString(nicFormat, text, name)
  return {
    name,
    model: String(values.model),
    mac: String(values.macaddr ?? ''),
    bridge: values.bridge === undefined ? undefined : String(values.bridge),
    isLinkDown: values.link_down === true,
    mtu: typeof values.mtu === 'number' ? values.mtu : undefined,
    tag: typeof values.tag === 'number' ? values.tag : undefined,
    trunks: typeof values.trunks === 'string' ? values.trunks : undefined,
    rate: typeof values.rate === 'number' ? values.rate * MiB : undefined,
  }
}

export function nicsOf(options: Options): Nic[] {
  return nicNames(options).map((name) => nicOf(name, options[name] ?? ''))
}

export function nicErrors(options: Options): Errors {
  const errors: Errors = {}
  for (const name of nicNames(options)) {
    const values = readPropertyString(nicFormat, options[name] ?? '', name)
    const isOutside = String(values.trunks ?? '1')
      .split(/[;-]/)
      .some((vlan) => Number(vlan) < 1 || Number(vlan) > 4094)
    if (isOutside) {
      errors[name] = `trunks: '${String(values.trunks)}' names VLANs beyond 1 to 4094`
    } else if ((values.tag !== undefined || values.trunks !== undefined) && values.bridge === undefined) {
      errors[name] = 'tag and trunks are for a card on a bridge: name it, bridge=vmbr0'
    } else if (typeof values.queues === 'number' && values.queues > 1) {
      errors[name] = 'several queues are not supported by this release: leave queues out'
    }
  }
  return errors
}

/** The same card with a MAC address: its own, or a new one. `isFresh` forces a new one. */
export function withMac(name: string, text: string, random: Random, isFresh = false): string {
  const values = readPropertyString(nicFormat, text, name)
  const macaddr = isFresh || values.macaddr === undefined ? macAddress(random) : String(values.macaddr).toUpperCase()
  return printPropertyString(nicFormat, { ...values, macaddr })
}

/** QEMU's driver for a model. */
function driverOf(model: string): string {
  if (model === 'virtio') return 'virtio-net-pci'
  return model === 'e1000-82540em' ? 'e1000' : model
}

/**
 * @param descriptor the open tap the process inherits; without one the card gets address translation,
 *   which runs inside QEMU's sandbox and reaches what the node's own network reaches
 */
export function nicToArgv(nic: Nic, machine: MachineKind, descriptor?: number, bootIndex?: number): string[] {
  const netdev =
    descriptor === undefined
      ? keyed('user', { id: nic.name })
      : keyed('tap', { id: nic.name, fd: descriptor, vhost: false })
  return ['-netdev', netdev, ...deviceToArgv(nicDevice(nic, machine, bootIndex))]
}

/** What the guest sees of a card; the other end is the netdev of the same name. */
export function nicDevice(nic: Nic, machine: MachineKind, bootIndex?: number): DeviceSpec {
  const place = nic.model === 'ne2k_isa' ? {} : pciPlace(machine, nic.name)
  return {
    driver: driverOf(nic.model),
    properties: {
      id: nic.name,
      netdev: nic.name,
      mac: nic.mac,
      ...place,
      bootindex: bootIndex,
      host_mtu: nic.model === 'virtio' && nic.mtu !== undefined && nic.mtu > 1 ? nic.mtu : undefined,
      // A card nobody boots from needs no boot ROM; loading it costs every start some milliseconds.
      romfile: bootIndex === undefined && nic.model !== 'ne2k_isa' ? '' : undefined,
    },
  }
}
