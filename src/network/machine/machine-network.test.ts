/**
 * A network namespace as the machine: real bridges and addresses, made from what is declared and taken back again.
 * VLANs and bonds, which not every kernel has, are in `test/guest/host-network.test.ts`, in a machine of their own.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { machine } from '#host/exec.ts'
import { settingsFrom } from '#settings.ts'
import { observe } from './observe.ts'
import { HostNetwork } from './service.ts'
import { bridgeOverCard, type SmallMachine, smallMachine } from './small-machine.ts'

const host = machine()

async function apply({ network }: SmallMachine): Promise<void> {
  const plan = await network.plan()
  await network.carryOut(plan, () => {})
  await network.keep(plan)
}

describe('a machine of two cards', () => {
  let small: SmallMachine
  before(async () => {
    small = await smallMachine()
  })
  after(() => small[Symbol.asyncDispose]())

  test('shows its cards, and stages without touching anything', async () => {
    const shown = (await small.network.list()).interfaces
    assert.deepEqual(
      shown.map(({ iface, type, cidr, exists }) => ({ iface, type, cidr, exists })),
      [
        { iface: 'eth0', type: 'eth', cidr: '10.9.0.2/24', exists: true },
        { iface: 'eth1', type: 'eth', cidr: undefined, exists: true },
      ],
    )
    const before = await observe(host, { netns: small.netns })
    await small.network.create('vmbr0', bridgeOverCard)
    await small.network.create('vmbr1', { type: 'bridge', autostart: true, comments: 'for guests\n' })
    const { changes } = await small.network.list()
    assert.match(
      changes,
      /^--- \/etc\/network\/interfaces\n\+\+\+ \/etc\/network\/interfaces\.new\n@@ -1,2 \+1,17 @@\n/,
    )
    assert.match(changes, /^\+\tbridge-ports eth0$/m)
    assert.match(changes, /^\+#for guests$/m)
    assert.deepEqual(await observe(host, { netns: small.netns }), before)
  })

  test('moves its address and its way out onto a bridge', async () => {
    await apply(small)
    const { eth0, vmbr0, vmbr1 } = await observe(host, { netns: small.netns })
    assert.deepEqual([eth0?.master, eth0?.addresses, eth0?.routes], ['vmbr0', [], []])
    assert.deepEqual(vmbr0?.addresses, [{ family: 'inet', cidr: '10.9.0.2/24' }])
    assert.deepEqual(vmbr0?.routes, [{ family: 'inet', destination: 'default', gateway: '10.9.0.1' }])
    assert.equal(vmbr0?.mac, eth0?.mac, 'a switch that knows the machine by its card goes on knowing it')
    assert.equal(vmbr1?.isUp, true)
    assert.equal((await small.network.list()).changes, '')
    assert.deepEqual((await small.network.plan()).names, [], 'applied again it changes nothing')
  })

  test('a guest stays plugged in while its bridge changes, and holds its bridge', async () => {
    await small.run('link', 'add', 'name', 'hknwtestt0', 'type', 'veth', 'peer', 'name', 'guest')
    await small.run('link', 'set', 'dev', 'hknwtestt0', 'master', 'vmbr1', 'up')
    await small.store.transact(
      [],
      [
        {
          put: 'network/taps/hknwtestt0',
          value: { vmid: 100, nic: 'net0', mac: 'BC:24:11:00:00:01', bridge: 'vmbr1' },
        },
      ],
    )
    await small.network.update('vmbr1', { type: 'bridge', cidr: '10.8.0.1/24', mtu: 1400, bridge_ports: 'eth1' })
    await apply(small)
    const { vmbr1, eth1, hknwtestt0 } = await observe(host, { netns: small.netns })
    assert.deepEqual([hknwtestt0?.master, eth1?.master, vmbr1?.mtu], ['vmbr1', 'vmbr1', 1400])
    await small.network.delete('vmbr1')
    await assert.rejects(small.network.plan(), {
      kind: 'conflict',
      message: "the bridge 'vmbr1' cannot be removed: net0 of guest 100 is plugged in there",
    })
    await small.network.revert()
    await small.run('link', 'delete', 'dev', 'hknwtestt0')
  })

  test('an alias, a second address and IPv6 come and go', async () => {
    await small.network.create('vmbr1:1', { type: 'alias', address: '10.8.1.1', netmask: '255.255.255.0' })
    await small.network.update('vmbr1', { type: 'bridge', cidr6: 'fd00:8::1/64', delete: 'mtu,bridge_ports' })
    await apply(small)
    const { vmbr1, eth1 } = await observe(host, { netns: small.netns })
    assert.deepEqual(vmbr1?.addresses, [
      { family: 'inet', cidr: '10.8.0.1/24' },
      { family: 'inet', cidr: '10.8.1.1/24', label: 'vmbr1:1' },
      { family: 'inet6', cidr: 'fd00:8::1/64' },
    ])
    assert.deepEqual([vmbr1?.mtu, eth1?.master], [1500, undefined])
    await small.network.delete('vmbr1:1')
    await small.network.delete('vmbr1')
    await apply(small)
    assert.equal((await observe(host, { netns: small.netns })).vmbr1, undefined)
  })

  test('after a new start it is made again, and what does not start by itself stays off', async () => {
    await small.network.create('vmbr2', { type: 'bridge' })
    await apply(small)
    await small.run('link', 'delete', 'dev', 'vmbr0')
    await small.network.bringUp()
    const { eth0, vmbr0, vmbr2 } = await observe(host, { netns: small.netns })
    assert.deepEqual([eth0?.master, vmbr0?.addresses[0]?.cidr, vmbr2?.isUp], ['vmbr0', '10.9.0.2/24', false])
  })

  const wrong: [Record<string, unknown>, string, RegExp][] = [
    [{ type: 'OVSBridge' }, 'type', /Open vSwitch is not supported/],
    [{ type: 'fabric' }, 'type', /are not made here; there are bridge/],
    [{ type: 'bridge', bridge_ports: 'eth7' }, 'bridge_ports', /interface 'eth7' does not exist/],
    [{ type: 'bridge', bridge_ports: 'eth0' }, 'bridge_ports', /'eth0' is already taken by 'vmbr0'/],
    [{ type: 'bridge', cidr: '10.7.0.0/24' }, 'cidr', /is the network itself/],
    [{ type: 'bridge', cidr: '10.9.0.2/16' }, 'cidr', /already in use on 'vmbr0'/],
    [{ type: 'bridge', cidr: '10.7.0.1/24', gateway: '10.6.0.1' }, 'gateway', /not in the network of 10\.7\.0\.1\/24/],
    [{ type: 'bridge', cidr: '10.7.0.1/24', gateway: '10.7.0.2' }, 'gateway', /already exists on interface 'vmbr0'/],
    [{ type: 'bridge', slaves: 'eth1' }, 'slaves', /of type 'bridge' has no 'slaves'/],
    [{ type: 'bridge', bridge_vids: '2-9' }, 'bridge_vids', /only a bridge with bridge_vlan_aware/],
    [{ type: 'bond', slaves: 'eth1', bond_mode: 'balance-slb' }, 'bond_mode', /a mode of Open vSwitch/],
    [{ type: 'bond', slaves: '' }, 'slaves', /needs at least one slave/],
    [{ type: 'vlan', 'vlan-raw-device': 'eth1' }, 'vlan-id', /number from 1 to 4094/],
    [{ type: 'eth' }, 'iface', /there is no network card/],
    [{ type: 'alias', cidr: '10.7.0.1/24' }, 'iface', /called 'interface:number'/],
    [{ type: 'bridge', address: '10.7.0.1', netmask: '255.0.255.0' }, 'netmask', /is no netmask/],
  ]
  for (const [params, field, complaint] of wrong) {
    test(`refuses ${JSON.stringify(params)} by name`, async () => {
      const error: unknown = await small.network.create('test9', params).catch((fault: unknown) => fault)
      const fields: unknown = Reflect.get(Object(error), 'fields')
      assert.match(String(Reflect.get(Object(fields), field)), complaint)
      assert.equal((await small.network.list()).changes, '')
    })
  }

  test('what other software made is shown and not changed', async () => {
    await small.run('link', 'add', 'name', 'docker0', 'type', 'bridge')
    assert.equal((await small.network.get('docker0')).type, 'bridge')
    await assert.rejects(small.network.update('docker0', { type: 'bridge' }), (fault: { fields: { iface: string } }) =>
      /was made by other software/.test(fault.fields.iface),
    )
    await small.run('link', 'delete', 'dev', 'docker0')
  })

  test('a node that shares its network only looks', async () => {
    const settings = settingsFrom({ HAKO_INSTANCE: 'nwtest' })
    const { store, netns } = small
    const needs = { settings, store, host, clock: systemClock, random: systemRandom, log: silentLog, place: { netns } }
    const shared = new HostNetwork(needs)
    assert.ok((await shared.list()).interfaces.length > 0)
    for (const act of [
      shared.create('vmbr9', { type: 'bridge' }),
      shared.revert(),
      shared.delete('vmbr0'),
      shared.plan(),
    ]) {
      await assert.rejects(act, /belongs to the machine, which this node shares with others/)
    }
  })
})
