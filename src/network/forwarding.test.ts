/** In a namespace that stands for a whole machine, since the switch is one per machine and other tests use the real one. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { machine } from '#host/exec.ts'
import { addLink } from '#host/network/ip.ts'
import { createNetns, inNetns, removeNetns } from '#host/network/netns.ts'
import { listChains } from '#host/network/nft.ts'
import { readSysctl, writeSysctl } from '#host/network/sysctl.ts'
import { openMemoryStore } from '#store/memory.ts'
import { applyForwarding, forgetForwarding, type Forwarding } from './forwarding.ts'
import { namesOf } from './names.ts'
import { networkRecords } from './records.ts'

const host = machine()
const SWITCH = 'net/ipv4/ip_forward'
let machines = 0

async function anotherMachine() {
  const netns = `hx-forward-${process.pid}-${++machines}`
  await createNetns(host, netns)
  await writeSysctl(host, SWITCH, '0', { netns }) // A new namespace begins as the machine is.
  return {
    place: { netns },
    node: (instance: string): Forwarding & { bridge: (name: string, nat?: boolean) => Promise<void> } => {
      const records = networkRecords(openMemoryStore())
      return {
        host,
        names: namesOf(instance),
        records,
        place: { netns },
        bridge: (name, nat = true) =>
          records.bridges.put(name, { address: '10.1.0.1/24', mac: 'BC:24:11:00:00:01', nat }),
      }
    },
    forwards: () => readSysctl(host, SWITCH, { netns }),
    rules: async () => (await host.run(inNetns(netns, ['nft', 'list', 'ruleset']))).stdout,
    [Symbol.asyncDispose]: () => removeNetns(host, netns),
  }
}

test('forwarding is on while a bridge needs it, and off again when the last has gone', async () => {
  await using world = await anotherMachine()
  const node = world.node('one')
  await node.bridge('hkone1', false)
  await applyForwarding(node)
  assert.equal(await world.forwards(), '0')
  await node.bridge('hkone0')
  await applyForwarding(node)
  await applyForwarding(node)
  assert.equal(await world.forwards(), '1')
  await node.records.bridges.delete('hkone0')
  await applyForwarding(node)
  assert.equal(await world.forwards(), '0')
  assert.deepEqual(await listChains(host, world.place), [])
})

test('links that were there before are kept apart, links made later are not', async () => {
  await using world = await anotherMachine()
  await addLink(host, 'lan', ['type', 'veth', 'peer', 'name', 'wan'], world.place)
  const node = world.node('one')
  await node.bridge('hkone0')
  await applyForwarding(node)
  await addLink(host, 'later', ['type', 'bridge'], world.place)
  await applyForwarding(node)
  assert.match(
    await world.rules(),
    /iifname \{ "(lan|wan)", "(lan|wan)" \} oifname \{ "(lan|wan)", "(lan|wan)" \} drop/,
  )
  assert.doesNotMatch(await world.rules(), /later/)
})

for (const [first, second] of [
  ['one', 'two'],
  ['two', 'one'],
] as const) {
  test(`of two nodes ${first} leaves first: forwarding stays on until ${second} has left`, async () => {
    await using world = await anotherMachine()
    const nodes = { one: world.node('one'), two: world.node('two') }
    for (const node of [nodes.one, nodes.two]) {
      await node.bridge(`hk${node.names.table}`.slice(0, 15))
      await applyForwarding(node)
    }
    await forgetForwarding(nodes[first])
    assert.equal(await world.forwards(), '1')
    await forgetForwarding(nodes[second])
    await forgetForwarding(nodes[second])
    assert.equal(await world.forwards(), '0')
  })
}

test('forwarding that somebody else had switched on stays on, and nothing is kept apart', async () => {
  await using world = await anotherMachine()
  await addLink(host, 'lan', ['type', 'veth', 'peer', 'name', 'wan'], world.place)
  await writeSysctl(host, SWITCH, '1', world.place)
  const node = world.node('one')
  await node.bridge('hkone0')
  await applyForwarding(node)
  assert.doesNotMatch(await world.rules(), /lan/)
  await forgetForwarding(node)
  assert.equal(await world.forwards(), '1')
})

test('a node that lost its store still turns off what it turned on', async () => {
  await using world = await anotherMachine()
  const node = world.node('one')
  await node.bridge('hkone0')
  await applyForwarding(node)
  await forgetForwarding(world.node('one'))
  assert.equal(await world.forwards(), '0')
  assert.deepEqual(await listChains(host, world.place), [])
})
