import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { createBridge, portsOf } from './bridge.ts'
import { machine } from '../exec.ts'
import * as ip from './ip.ts'
import { createNetns, inNetns, listNetns, netnsExists, parseNetnsList, processesIn, removeNetns } from './netns.ts'
import { readSysctl, writeSysctl } from './sysctl.ts'

const host = machine()
const bridgeLink = `[{"ifindex":2,"ifname":"hkrec0","flags":["NO-CARRIER","BROADCAST","MULTICAST","UP"],"mtu":1500,"qdisc":"noqueue","operstate":"DOWN","address":"bc:24:11:00:00:01","linkinfo":{"info_kind":"bridge","info_data":{"stp_state":0}},"ifalias":"hakobune/rec"},{"ifindex":4,"link":"vb","ifname":"va","flags":["BROADCAST","MULTICAST"],"mtu":1450,"master":"hkrec0","address":"e2:79:00:c9:e8:70","linkinfo":{"info_kind":"veth","info_slave_kind":"bridge"}}]`

test('recorded links are read', () => {
  assert.deepEqual(ip.parseLinks(bridgeLink), [
    {
      name: 'hkrec0',
      index: 2,
      kind: 'bridge',
      mac: 'bc:24:11:00:00:01',
      isUp: true,
      mtu: 1500,
      master: undefined,
      alias: 'hakobune/rec',
    },
    {
      name: 'va',
      index: 4,
      kind: 'veth',
      mac: 'e2:79:00:c9:e8:70',
      isUp: false,
      mtu: 1450,
      master: 'hkrec0',
      alias: undefined,
    },
  ])
  assert.deepEqual(ip.parseLinks(''), [])
})

test('recorded addresses and routes are read', () => {
  const addresses =
    '[{"ifname":"eth0","addr_info":[{"family":"inet","local":"192.0.2.2","prefixlen":24},{"family":"inet6","local":"fd00::2","prefixlen":64}]},{"ifname":"tap0","addr_info":[]}]'
  assert.deepEqual(ip.parseAddresses(addresses), [
    { link: 'eth0', family: 'inet', address: '192.0.2.2', prefix: 24 },
    { link: 'eth0', family: 'inet6', address: 'fd00::2', prefix: 64 },
  ])
  const routes =
    '[{"type":"blackhole","dst":"10.98.0.0/16","flags":[]},{"dst":"default","gateway":"192.0.2.1","dev":"eth0","flags":[]}]'
  assert.deepEqual(ip.parseRoutes(routes), [
    { destination: '10.98.0.0/16', link: undefined, gateway: undefined },
    { destination: 'default', link: 'eth0', gateway: '192.0.2.1' },
  ])
})

test('names of namespaces are read with and without an id', () => {
  assert.deepEqual(parseNetnsList('a (id: 3)\nb\n'), ['a', 'b'])
})

test('links, addresses, ports and kernel settings of a namespace are its own', async () => {
  const netns = `hx-ip-${process.pid}`
  const place = { netns }
  try {
    await createNetns(host, netns)
    await createNetns(host, netns)
    assert.ok((await listNetns(host)).includes(netns))
    const wish = { name: 'br0', address: '10.9.0.1/24', mac: 'BC:24:11:00:00:09', alias: 'mine', netns }
    assert.deepEqual(await createBridge(host, wish), { isNew: true })
    assert.deepEqual(await createBridge(host, { ...wish, address: '10.9.1.1/24' }), { isNew: false })
    assert.deepEqual(
      (await ip.addressesOf(host, 'br0', place)).map(({ address }) => address),
      ['10.9.1.1'],
    )
    await assert.rejects(createBridge(host, { ...wish, alias: 'yours' }), (error) => isFault(error, 'conflict'))
    await ip.addLink(host, 'va', ['type', 'veth', 'peer', 'name', 'vb'], place)
    await ip.changeLink(host, 'va', { master: 'br0', isUp: true }, place)
    assert.deepEqual(await portsOf(host, 'br0', place), ['va'])
    assert.equal(
      (await ip.findLink(host, 'br0', place))?.mac,
      wish.mac.toLowerCase(),
      'a port does not change its address',
    )
    assert.equal(await readSysctl(host, 'net/ipv6/conf/br0/disable_ipv6', place), '1')
    await writeSysctl(host, 'net/ipv4/ip_forward', '1', place)
    assert.equal(await readSysctl(host, 'net/ipv4/ip_forward', place), '1')
    assert.deepEqual(await processesIn(host, netns), [])
    await ip.deleteLink(host, 'va', place)
    await ip.deleteLink(host, 'va', place)
    const { stdout } = await host.run(inNetns(netns, ['cat', '/proc/net/dev']))
    assert.doesNotMatch(stdout, /eth0/)
  } finally {
    await removeNetns(host, netns)
    await removeNetns(host, netns)
  }
  assert.equal(await netnsExists(netns), false)
})

test('a setting that does not exist, or a path that leaves its tree, is a fault', async () => {
  await assert.rejects(readSysctl(host, 'net/ipv4/no_such'), (error) => isFault(error, 'unavailable'))
  await assert.rejects(writeSysctl(host, 'net/../../etc/passwd', 'x'), (error) => isFault(error, 'invalid'))
  assert.throws(
    () => inNetns('../x', ['true']),
    (error) => isFault(error, 'invalid'),
  )
})
