/** Who reaches whom: asked by sending packets. */
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { once } from 'node:events'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { httpGet, tcpConnect } from '#host/network/http-probe.ts'
import * as ip from '#host/network/ip.ts'
import { inNetns, netnsExists } from '#host/network/netns.ts'
import { computer, host, node, nothing, webServer } from '../../test/network-on-this-machine.ts'

const isSilent = (error: unknown) => isFault(error, 'unavailable')

test('a guest on a bridge with NAT gets an address and reaches the outside, and nobody outside reaches it', async () => {
  await using lab = await node()
  const { network, bridge, instance } = lab
  const cidr = await network.freeSubnet()
  const outside = `198.18.${process.pid % 250}`
  await using world = await computer(`hx-${instance}-w`, async (cable) => {
    await ip.setAddress(host, cable, `${outside}.1/24`)
    await ip.changeLink(host, cable, { isUp: true })
  })
  await ip.setAddress(host, 'card', `${outside}.2/24`, { netns: world.netns })
  await ip.changeLink(host, 'card', { isUp: true }, { netns: world.netns })
  await world.run(['ip', 'route', 'add', 'default', 'via', `${outside}.1`])
  await using _worldServer = await webServer(world.netns, 80)

  await network.ensureBridge({ name: bridge, cidr, nat: true })
  await using guest = await computer(`hx-${instance}-g`, (cable) =>
    ip.changeLink(host, cable, { master: bridge, isUp: true }),
  )
  const { address, mask, router } = await guest.dhcp(lab.directory)
  await using _guestServer = await webServer(guest.netns, 80)

  assert.equal(mask, '24')
  assert.equal(router, cidr.replace('.0/24', '.1'))
  assert.equal(await network.addressOf(guest.mac.toUpperCase(), { bridge }), address)
  const answer = await httpGet({ host, netns: guest.netns, url: `http://${outside}.2/` })
  assert.equal(answer.body, `${world.netns} saw ${outside}.1`, 'the outside sees the machine, not the guest')
  const asked = await httpGet({ host, url: `http://${address}/` })
  assert.equal(asked.body, `${guest.netns} saw ${router}`, 'the machine reaches the guest')
  await assert.rejects(httpGet({ host, netns: world.netns, url: `http://${address}/`, timeoutMs: 700 }), isSilent)

  const onMachine = createServer().listen(0, '0.0.0.0')
  try {
    await once(onMachine, 'listening')
    const bound = onMachine.address()
    const port = typeof bound === 'object' && bound ? bound.port : 0
    await tcpConnect({ host, address: router ?? '', port })
    await assert.rejects(
      tcpConnect({ host, netns: guest.netns, address: router ?? '', port, timeoutMs: 700 }),
      isSilent,
    )
  } finally {
    onMachine.close()
  }
  await guest.run(['busybox', 'ping', '-c', '1', '-W', '3', router ?? ''])

  // With another network's address it comes no further than the bridge.
  await guest.run(['ip', 'address', 'add', '10.77.77.77/32', 'dev', 'card'])
  const spoofed = await guest.run(
    ['busybox', 'ping', '-c', '1', '-W', '1', '-I', '10.77.77.77', `${outside}.2`],
    [0, 1],
  )
  assert.equal(spoofed.code, 1)

  assert.deepEqual(await network.bridges(), [
    {
      name: bridge,
      cidr: cidr.replace('.0/24', '.1/24'),
      nat: true,
      range: [cidr.replace('.0/24', '.51'), cidr.replace('.0/24', '.254')],
      isActive: true,
    },
  ])
  await network.removeBridge(bridge)
  await network.removeBridge(bridge)
  assert.deepEqual(await lab.remains(), nothing)
  assert.deepEqual(await network.bridges(), [])
})

test('inside an isolated network guests get addresses and reach each other, and nothing reaches out or in', async () => {
  await using lab = await node()
  const { network, instance } = lab
  const drill = await network.createIsolated('drill')
  assert.deepEqual(await network.createIsolated('drill'), drill)
  const inside = { netns: drill.netns }
  const present = (await ip.links(host, inside)).map(({ name }) => name)
  assert.deepEqual(present.toSorted(), [drill.bridge, 'lo'])
  assert.deepEqual(
    (await ip.routes(host, inside)).filter(({ destination }) => destination === 'default'),
    [],
  )

  await using guest = await computer(`hx-${instance}-g`, async (cable) => {
    await ip.changeLink(host, cable, { toNetns: drill.netns })
    await ip.changeLink(host, cable, { master: drill.bridge, isUp: true }, inside)
  })
  const { address, router } = await guest.dhcp(lab.directory)
  assert.equal(router, undefined, 'nobody offers a way out')
  assert.equal(await network.addressOf(guest.mac, inside), address)
  await using _server = await webServer(guest.netns, 80)
  const url = `http://${address}/`
  assert.equal((await httpGet({ host, ...inside, url })).body, `${guest.netns} saw ${drill.cidr.split('/')[0]}`)
  await tcpConnect({ host, ...inside, address, port: 80 })
  // Whatever answers the machine at this address, somewhere beyond its own router, is not the guest.
  const elsewhere = await httpGet({ host, url, timeoutMs: 500 }).catch((error: unknown) => assert.ok(isSilent(error)))
  assert.doesNotMatch(elsewhere?.body ?? '', /saw/)

  // A server on the machine, on all its addresses: reached by the machine, by nobody inside.
  const onMachine = createServer().listen(0, '0.0.0.0')
  try {
    await once(onMachine, 'listening')
    const bound = onMachine.address()
    const port = typeof bound === 'object' && bound ? bound.port : 0
    // Bridges of other tests come and go meanwhile.
    const own = (await ip.addresses(host)).filter(({ family, link }) => family === 'inet' && !/^h[kx]/.test(link))
    assert.ok(own.length > 0)
    // Even a guest that takes the bridge for its router comes no further.
    await guest.run(['ip', 'route', 'add', 'default', 'via', drill.cidr.split('/')[0] ?? ''])
    for (const { address: target } of own) {
      await tcpConnect({ host, address: target, port })
      await assert.rejects(tcpConnect({ host, netns: guest.netns, address: target, port, timeoutMs: 300 }), isSilent)
      await assert.rejects(tcpConnect({ host, ...inside, address: target, port, timeoutMs: 300 }), isSilent)
      if (target.startsWith('127.')) continue
      const ping = await guest.run(['busybox', 'ping', '-c', '1', '-W', '1', target], [0, 1, 2])
      assert.notEqual(ping.code, 0, `${target} answered`)
    }
  } finally {
    onMachine.close()
  }
  await network.removeIsolated('drill')
  await network.removeIsolated('drill')
  assert.deepEqual(await lab.remains(), nothing)
})

test('two isolated networks with the same addresses do not see each other', async () => {
  await using lab = await node()
  const [one, two] = [await lab.network.createIsolated('one'), await lab.network.createIsolated('two')]
  assert.equal(one.cidr, two.cidr)
  await ip.setAddress(host, one.bridge, '10.181.255.7/24', { netns: one.netns })
  const ping = (netns: string) =>
    host.run(inNetns(netns, ['busybox', 'ping', '-c', '1', '-W', '1', '10.181.255.7']), { okCodes: [0, 1] })
  assert.equal((await ping(one.netns)).code, 0)
  assert.equal((await ping(two.netns)).code, 1)
  await lab.network.removeIsolated('one')
  assert.equal(await netnsExists(two.netns), true)
})
