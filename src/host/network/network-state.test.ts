import assert from 'node:assert/strict'
import { test } from 'node:test'
import { machine } from '../exec.ts'
import { changeNetwork, parseAddressRows, parseLinkRows, parseRouteRows, parseVlanRows } from './network-state.ts'

test('recorded links of every kind are read', () => {
  const text = `[{"ifindex":3,"ifname":"eth0","flags":["BROADCAST","MULTICAST","SLAVE","UP"],"mtu":1500,"master":"bond0","address":"52:54:00:00:00:00","linkinfo":{"info_slave_kind":"bond"}},
    {"ifindex":5,"link":"vmbr0","ifname":"vmbr0.10","flags":["UP"],"mtu":1400,"address":"52:54:00:00:00:01","ifalias":"hakobune/node","linkinfo":{"info_kind":"vlan","info_data":{"protocol":"802.1Q","id":10,"flags":["REORDER_HDR"]}}},
    {"ifindex":6,"link_index":2,"ifname":"eth7","flags":[],"mtu":1500,"address":"52:54:00:00:00:02","link_netnsid":0,"linkinfo":{"info_kind":"veth"}}]`
  const [slave, vlan, cable] = parseLinkRows(text)
  assert.deepEqual([slave?.kind, slave?.master, slave?.isUp], [undefined, 'bond0', true])
  assert.deepEqual([vlan?.kind, vlan?.parent, vlan?.data.id, vlan?.alias], ['vlan', 'vmbr0', 10, 'hakobune/node'])
  assert.deepEqual([cable?.leadsOutside, cable?.parent, slave?.leadsOutside], [true, undefined, false])
})

test('recorded addresses, routes and VLANs are read', () => {
  const addresses =
    '[{"ifname":"eth0","addr_info":[{"family":"inet","local":"192.0.2.2","prefixlen":24,"scope":"global","label":"eth0:1"},{"family":"inet6","local":"fe80::2","prefixlen":64,"scope":"link"}]}]'
  assert.deepEqual(parseAddressRows(addresses), [
    { link: 'eth0', family: 'inet', cidr: '192.0.2.2/24', label: 'eth0:1', scope: 'global' },
    { link: 'eth0', family: 'inet6', cidr: 'fe80::2/64', label: undefined, scope: 'link' },
  ])
  const routes =
    '[{"type":"blackhole","dst":"10.98.0.0/16"},{"dst":"default","gateway":"192.0.2.1","dev":"eth0","protocol":"static","metric":100}]'
  assert.deepEqual(parseRouteRows(routes, 'inet'), [
    { link: 'eth0', family: 'inet', destination: 'default', gateway: '192.0.2.1', metric: 100, protocol: 'static' },
  ])
  const vlans = '[{"ifname":"tap0","vlans":[{"vlan":1,"flags":["PVID","Egress Untagged"]},{"vlan":20,"vlanEnd":30}]}]'
  assert.deepEqual(parseVlanRows(vlans), [
    { link: 'tap0', first: 1, last: 1, flags: ['PVID', 'Egress Untagged'] },
    { link: 'tap0', first: 20, last: 30, flags: [] },
  ])
})

test('a command that fails is named with what the kernel said; a word that is no word is refused', async () => {
  const commands = [
    ['link', 'show', 'dev', 'lo'],
    ['link', 'set', 'dev', 'hx-none', 'up'],
  ]
  await assert.rejects(changeNetwork(machine(), 'ip', commands), {
    kind: 'failed',
    message: `'ip link set dev hx-none up' failed: Cannot find device "hx-none"`,
  })
  await assert.rejects(changeNetwork(machine(), 'ip', [['link', 'set', 'dev', 'lo down\nlink']]), { kind: 'invalid' })
})
