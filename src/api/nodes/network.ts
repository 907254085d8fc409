/** `/nodes/{node}/network`: interfaces of the machine, staged until they are applied. */
import {
  array,
  boolean,
  enumOf,
  integer,
  nothing,
  object,
  optional,
  record,
  refine,
  string,
} from '#base/schema/schema.ts'
import { nodeName, upid } from '#base/schema/standard.ts'
import { confirmDefaultSeconds } from '#network/machine/confirmation.ts'
import { bondModes } from '#network/machine/rules.ts'
import { check, anyone, Reply } from '#rest/endpoint.ts'
import { applyStagedNetwork, visibleInterfaces } from './network-rights.ts'
import { endpoint } from '../call.ts'

const mayModify = check('Sys.Modify', '/nodes/{node}')
const at = { node: nodeName }
const iface = string({ description: 'Name of the interface.', format: 'pve-iface', minLength: 2, maxLength: 20 })
const named = { ...at, iface }

const makeable = ['bridge', 'bond', 'eth', 'alias', 'vlan', 'fabric'] as const
const openSwitch = ['OVSBridge', 'OVSBond', 'OVSPort', 'OVSIntPort'] as const
const type = enumOf([...makeable, ...openSwitch, 'vnet', 'unknown'], { description: 'Kind of interface.' })
const filter = enumOf([...makeable, ...openSwitch, 'vnet', 'any_bridge', 'any_local_bridge', 'include_sdn'], {
  description: 'Only interfaces of this kind; any_bridge: all a guest can be plugged into.',
})

const text = (description: string, rules: Parameters<typeof string>[0] = {}) =>
  optional(string({ description, maxLength: 64, ...rules }))
const ifaceName = { format: 'pve-iface', maxLength: 20 }
const ifaceList = { format: 'pve-iface-list', maxLength: 1024 }

const options = {
  type,
  autostart: optional(boolean({ description: 'Switch it on when the machine starts.' })),
  cidr: text('IPv4 address with the size of its network, `192.0.2.1/24`.', { format: 'CIDRv4' }),
  address: text('IPv4 address; better given as cidr.', { format: 'ipv4', requires: 'netmask' }),
  netmask: text('Mask of its network, `255.255.255.0` or `24`.', { format: 'ipv4mask', requires: 'address' }),
  gateway: text('IPv4 address of the router to everywhere else.', { format: 'ipv4' }),
  cidr6: text('IPv6 address with the size of its network.', { format: 'CIDRv6' }),
  address6: text('IPv6 address; better given as cidr6.', { format: 'ipv6', requires: 'netmask6' }),
  netmask6: optional(integer({ description: 'Bits of its network.', minimum: 0, maximum: 128, requires: 'address6' })),
  gateway6: text('IPv6 address of the router to everywhere else.', { format: 'ipv6' }),
  mtu: optional(integer({ description: 'Largest packet in bytes.', minimum: 1280, maximum: 65_520 })),
  comments: text('A note.', { maxLength: 4096 }),
  comments6: text('A note on the IPv6 part.', { maxLength: 4096 }),
  bridge_ports: text('Interfaces the bridge takes in.', ifaceList),
  bridge_vlan_aware: optional(
    boolean({ description: 'The bridge tells VLANs apart, as `tag` of a guest’s card asks.' }),
  ),
  bridge_vids: text('VLANs its ports carry, `2-4094`; needs bridge_vlan_aware.', {
    format: 'pve-vlan-id-or-range-list',
    maxLength: 1024,
  }),
  slaves: text('Interfaces the bond is made of.', ifaceList),
  bond_mode: optional(
    enumOf([...bondModes, 'balance-slb', 'lacp-balance-slb', 'lacp-balance-tcp'], {
      description: 'How the bond shares its work among its members; those with slb and tcp are Open vSwitch’s.',
    }),
  ),
  bond_xmit_hash_policy: optional(
    enumOf(['layer2', 'layer2+3', 'layer3+4'], { description: 'By what balance-xor and 802.3ad choose a member.' }),
  ),
  'bond-primary': text('The member active-backup prefers.', ifaceName),
  'vlan-id': optional(integer({ description: 'Number of the VLAN.', minimum: 1, maximum: 4094 })),
  'vlan-raw-device': text('Interface the VLAN rides on.', ifaceName),
  ovs_bonds: text('Open vSwitch: not supported.', ifaceList),
  ovs_bridge: text('Open vSwitch: not supported.', ifaceName),
  ovs_options: text('Open vSwitch: not supported.', { maxLength: 1024 }),
  ovs_ports: text('Open vSwitch: not supported.', ifaceList),
  ovs_tag: optional(integer({ description: 'Open vSwitch: not supported.', minimum: 1, maximum: 4094 })),
}

const method = (family: string) =>
  optional(
    enumOf(['loopback', 'dhcp', 'manual', 'static', 'auto'], { description: `Where its ${family} address is from.` }),
  )
const { ovs_bonds: _, ovs_bridge: __, ovs_options: ___, ovs_ports: ____, ovs_tag: _____, ...shown } = options
const interfaceRow = object({
  ...shown,
  iface,
  netmask: text('Bits of its network.'),
  active: optional(boolean({ description: 'It is switched on now.' })),
  exists: optional(boolean({ description: 'The machine has this card.' })),
  families: optional(array(string({ description: 'inet or inet6.' }), { description: 'Families of addresses.' })),
  method: method('IPv4'),
  method6: method('IPv6'),
  priority: optional(integer({ description: 'Its place in the list.' })),
})

export const networkEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/network',
    description: 'Interfaces of a node as they will be once staged changes are applied; beside them the difference.',
    proxyTo: 'node',
    params: { ...at, type: optional(filter) },
    permission: anyone,
    returns: array(interfaceRow),
    cli: {
      command: ['network', 'list'],
      columns: ['iface', 'type', 'active', 'autostart', 'cidr', 'gateway', 'bridge_ports', 'slaves', 'comments'],
      id: 'iface',
    },
    async handle(params, call) {
      const { interfaces, changes } = await visibleInterfaces(params, call)
      return new Reply(interfaces, changes === '' ? {} : { changes })
    },
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/network',
    description: 'Stage a new interface.',
    proxyTo: 'node',
    params: { ...named, ...options },
    permission: mayModify,
    returns: nothing,
    cli: {
      command: ['network', 'create'],
      positional: ['iface'],
      defaults: { autostart: '1' },
      examples: ['network create vmbr1 --type bridge --bridge_ports eth1 --cidr 192.0.2.1/24'],
    },
    handle: ({ node: _node, iface: name, ...rest }, { services }) =>
      services.hostNetwork.create(name, rest).then(() => null),
  }),
  endpoint({
    method: 'PUT',
    path: '/nodes/{node}/network',
    description: 'Apply what is staged; it is taken back unless the node is seen to be reachable afterwards.',
    proxyTo: 'node',
    params: {
      ...at,
      'regenerate-frr': optional(
        boolean({ description: 'Also configure the routing daemon; there is none here.', default: false }),
      ),
    },
    permission: mayModify,
    returns: refine(upid, { description: 'Task that applies it.' }),
    handle: (_params, call) => applyStagedNetwork(call, confirmDefaultSeconds),
  }),
  endpoint({
    method: 'DELETE',
    path: '/nodes/{node}/network',
    description: 'Forget all staged changes.',
    proxyTo: 'node',
    params: at,
    permission: mayModify,
    returns: nothing,
    cli: { command: ['network', 'revert'] },
    handle: (_params, { services }) => services.hostNetwork.revert().then(() => null),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/network/{iface}',
    description: 'One interface as it will be once staged changes are applied.',
    proxyTo: 'node',
    params: named,
    permission: check('Sys.Audit', '/nodes/{node}'),
    returns: record({ description: 'The interface.' }),
    cli: { command: ['network', 'show'], positional: ['iface'] },
    async handle({ iface: name }, { services }) {
      const { iface: _iface, ...rest } = await services.hostNetwork.get(name)
      return rest
    },
  }),
  endpoint({
    method: 'PUT',
    path: '/nodes/{node}/network/{iface}',
    description: 'Stage a change of an interface; what is not given stays.',
    proxyTo: 'node',
    params: {
      ...named,
      ...options,
      delete: text('Settings to remove.', { format: 'pve-configid-list', maxLength: 1024 }),
    },
    permission: mayModify,
    returns: nothing,
    cli: {
      command: ['network', 'set'],
      positional: ['iface'],
      examples: ['network set vmbr1 --type bridge --mtu 9000'],
    },
    handle: ({ node: _node, iface: name, ...rest }, { services }) =>
      services.hostNetwork.update(name, rest).then(() => null),
  }),
  endpoint({
    method: 'DELETE',
    path: '/nodes/{node}/network/{iface}',
    description: 'Stage that an interface goes.',
    proxyTo: 'node',
    params: named,
    permission: mayModify,
    returns: nothing,
    cli: { command: ['network', 'delete'], positional: ['iface'] },
    handle: ({ iface: name }, { services }) => services.hostNetwork.delete(name).then(() => null),
  }),
]
