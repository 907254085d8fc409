import assert from 'node:assert/strict'
import { test } from 'node:test'
import { textOf } from './change.ts'
import type { Declared } from './declared.ts'
import type { LinkState, NetworkState } from './state.ts'
import { stepsBetween } from './steps.ts'
import { wantedState } from './wanted.ts'

const card = (name: string, more: Partial<LinkState> = {}): LinkState => {
  return { name, mac: '52:54:00:00:00:00', isUp: true, mtu: 1500, addresses: [], routes: [], ...more }
}
const now: NetworkState = {
  eth0: card('eth0', {
    addresses: [{ family: 'inet', cidr: '192.0.2.2/24' }],
    routes: [{ family: 'inet', destination: 'default', gateway: '192.0.2.1' }],
  }),
  eth1: card('eth1', { isUp: false }),
}

function steps(from: NetworkState, before: readonly Declared[], after: readonly Declared[]): string[] {
  const to = wantedState({ now: from, before, after, alias: 'hakobune/node', newMac: () => 'bc:24:11:00:00:01' })
  return stepsBetween(from, to).map(textOf)
}

test('the address of a card moves onto a bridge before anything else has it', () => {
  const bridge: Declared = {
    iface: 'vmbr0',
    type: 'bridge',
    autostart: true,
    bridge_ports: ['eth0'],
    bridge_vlan_aware: true,
    bridge_vids: '10-20',
    cidr: '192.0.2.2/24',
    gateway: '192.0.2.1',
  }
  assert.deepEqual(steps(now, [], [bridge]), [
    'ip route delete 0.0.0.0/0 via 192.0.2.1 dev eth0',
    'ip address delete 192.0.2.2/24 dev eth0',
    'ip link add name vmbr0 address 52:54:00:00:00:00 type bridge stp_state 0 forward_delay 0 vlan_filtering 1',
    'net/ipv6/conf/vmbr0/accept_ra = 0',
    'ip link set dev vmbr0 alias hakobune/node',
    'ip link set dev eth0 master vmbr0',
    'bridge vlan add dev eth0 vid 10-20',
    'ip link set dev vmbr0 up',
    'ip address replace 192.0.2.2/24 dev vmbr0',
    'ip route replace 0.0.0.0/0 via 192.0.2.1 dev vmbr0 proto static',
  ])
})

test('a card keeps what the machine gave it until something else is declared', () => {
  assert.deepEqual(steps(now, [], [{ iface: 'eth0', type: 'eth', mtu: 9000 }]), ['ip link set dev eth0 mtu 9000'])
  assert.deepEqual(steps(now, [], [{ iface: 'eth0', type: 'eth', cidr: '192.0.2.3/24' }]), [
    'ip address delete 192.0.2.2/24 dev eth0',
    'ip address replace 192.0.2.3/24 dev eth0',
  ])
})

test('a bond takes its members while they are down, and what rides on it is made after it', () => {
  const wishes: Declared[] = [
    { iface: 'vmbr1', type: 'bridge', autostart: true, bridge_ports: ['bond0.5'] },
    { iface: 'bond0.5', type: 'vlan', autostart: true },
    { iface: 'bond0', type: 'bond', autostart: true, slaves: ['eth1'], bond_mode: '802.3ad' },
  ]
  assert.deepEqual(steps({ eth1: card('eth1') }, [], wishes), [
    'ip link add name bond0 type bond mode 802.3ad miimon 100 xmit_hash_policy layer2',
    'ip link add name vmbr1 address bc:24:11:00:00:01 type bridge stp_state 0 forward_delay 0',
    'net/ipv6/conf/vmbr1/accept_ra = 0',
    'ip link add link bond0 name bond0.5 type vlan id 5',
    'ip link set dev bond0 alias hakobune/node',
    'ip link set dev vmbr1 alias hakobune/node',
    'ip link set dev bond0.5 alias hakobune/node',
    'ip link set dev eth1 down',
    'ip link set dev eth1 master bond0',
    'ip link set dev bond0.5 master vmbr1',
    'ip link set dev eth1 up',
    'ip link set dev bond0.5 up',
    'ip link set dev bond0 up',
    'ip link set dev vmbr1 up',
  ])
})

test('another mode is another bond: what rides on it goes first and comes back', () => {
  const bond: Declared = { iface: 'bond0', type: 'bond', autostart: true, slaves: ['eth1'] }
  const vlan: Declared = { iface: 'bond0.5', type: 'vlan', autostart: true }
  const before = [bond, vlan]
  const there = wantedState({
    now: { eth1: card('eth1') },
    before: [],
    after: before,
    alias: 'hakobune/node',
    newMac: () => '',
  })
  const after = [{ ...bond, bond_mode: 'balance-alb' }, vlan]
  const taken = steps(there, before, after)
  assert.deepEqual(taken.slice(0, 4), [
    'ip link delete dev bond0.5',
    'ip link delete dev bond0',
    'ip link add name bond0 type bond mode balance-alb miimon 100 xmit_hash_policy layer2',
    'ip link add link bond0 name bond0.5 type vlan id 5',
  ])
})

test('a name that is something else, or another node’s, is not taken', () => {
  const wish: Declared = { iface: 'vmbr0', type: 'bridge' }
  const other = { vmbr0: card('vmbr0', { kind: 'bridge', alias: 'hakobune/other' }) }
  assert.throws(() => steps(other, [], [wish]), /'vmbr0' exists and is made by another node/)
  assert.throws(() => steps({ vmbr0: card('vmbr0', { kind: 'veth' }) }, [], [wish]), /exists and is veth, not a bridge/)
})
