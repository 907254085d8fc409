/** On the real machine: bridges and namespaces are real, and all of it is gone afterwards. */
import assert from 'node:assert/strict'
import { closeSync, existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { spawnDetached } from '#host/exec.ts'
import * as ip from '#host/network/ip.ts'
import { inNetns } from '#host/network/netns.ts'
import { endProcess, findProcesses, isAlive, startTimeOf } from '#host/programs/proc.ts'
import { readSysctl } from '#host/network/sysctl.ts'
import { host, node, nothing } from '../../test/network-on-this-machine.ts'

test('removing an isolated network ends what still runs inside', async () => {
  await using lab = await node()
  const { netns } = await lab.network.createIsolated('drill')
  const log = join(lab.directory, 'sleep.log')
  const pid = await spawnDetached(inNetns(netns, ['sleep', '600']), { outputFile: log })
  const startTime = (await startTimeOf(pid)) ?? 0
  await waitFor(async () => (await host.run(['ip', 'netns', 'pids', netns])).stdout.includes(String(pid)), {
    what: 'the program inside',
    timeoutMs: 60_000,
  })
  await lab.network.removeIsolated('drill')
  assert.equal(await isAlive(pid, startTime), false)
})

test('a card is plugged in once, lives as long as its descriptor, and can be plugged in again', async () => {
  await using lab = await node()
  const { network, bridge } = lab
  const card = { vmid: 100, nic: 'net0', mac: 'BC:24:11:00:00:01', bridge }
  await assert.rejects(
    network.plug(card),
    (error) => isFault(error, 'missing') && error.message === `bridge '${bridge}' does not exist`,
  )
  await network.ensureBridge({ name: bridge, cidr: await network.freeSubnet(), nat: false })
  const first = await network.plug(card)
  try {
    const link = await ip.findLink(host, first.tap)
    assert.equal(link?.master, bridge)
    assert.equal(link?.alias, `hakobune/${lab.instance}`)
    await assert.rejects(
      lab.another().plug(card),
      (error) => isFault(error, 'conflict') && /net0 of guest 100/.test(error.message),
    )
    const second = await network.plug({ ...card, nic: 'net1' })
    assert.notEqual(second.tap, first.tap)
    closeSync(second.fd)
  } finally {
    closeSync(first.fd)
  }
  assert.equal(await ip.findLink(host, first.tap), undefined)
  const again = await network.plug(card)
  assert.equal(again.tap, first.tap)
  await lab.another().unplug({ vmid: 100 })
  assert.equal(await ip.findLink(host, again.tap), undefined, 'also from under its holder')
  await lab.another().unplug({ vmid: 100 })
  closeSync(again.fd)
  await network.removeBridge(bridge)
  assert.deepEqual(await lab.remains(), nothing)
})

test('what holds a card to its rate comes and goes with the wish, and with the card', async () => {
  await using lab = await node()
  const { network, bridge, instance } = lab
  await network.ensureBridge({ name: bridge, cidr: await network.freeSubnet(), nat: false })
  const card = { vmid: 100, nic: 'net0', mac: 'BC:24:11:00:00:05', bridge }
  const { tap, fd } = await network.plug({ ...card, rate: 2 ** 20 })
  try {
    const rateAt = async (link: string) =>
      /qdisc tbf .* rate (\S+)/.exec((await host.run(['tc', 'qdisc', 'show', 'dev', link])).stdout)?.[1]
    const shaper = tap.replace(/t(\d+)$/, 's$1')
    assert.equal(shaper.startsWith(`hk${instance}s`), true)
    assert.deepEqual([await rateAt(tap), await rateAt(shaper)], ['8388Kbit', '8388Kbit'])
    await network.move({ ...card, rate: 2 ** 21 })
    assert.deepEqual([await rateAt(tap), await rateAt(shaper)], ['16777Kbit', '16777Kbit'])
    await network.move(card)
    assert.deepEqual([await rateAt(tap), await ip.findLink(host, shaper)], [undefined, undefined])
    await network.move({ ...card, rate: 2 ** 20 })
    await lab.another().unplug({ vmid: 100 })
    assert.equal(await ip.findLink(host, shaper), undefined)
  } finally {
    closeSync(fd)
  }
  await network.removeBridge(bridge)
  assert.deepEqual(await lab.remains(), nothing)
})

test('a card in an isolated network joins its bridge, and survives in the record until unplugged', async () => {
  await using lab = await node()
  const { netns, bridge } = await lab.network.createIsolated('drill')
  const card = { vmid: 9001, nic: 'net0', mac: 'BC:24:11:00:00:02', bridge: 'vmbr0', netns }
  const { tap, fd } = await lab.network.plug(card)
  try {
    assert.equal((await ip.findLink(host, tap, { netns }))?.master, bridge)
    assert.equal(await ip.findLink(host, tap), undefined)
    await lab.network.unplug({ vmid: 9001, nic: 'net0', netns })
    assert.equal(await ip.findLink(host, tap, { netns }), undefined)
  } finally {
    closeSync(fd)
  }
  await lab.network.removeIsolated('drill')
  await assert.rejects(lab.network.plug(card), (error) => isFault(error, 'missing'))
  await lab.network.unplug({ vmid: 9001 })
})

test('the DHCP service outlives its starter, is adopted as it is, and comes back after its death', async () => {
  await using lab = await node()
  const wish = { name: lab.bridge, cidr: await lab.network.freeSubnet(), nat: false }
  const running = () =>
    findProcesses((argv) => argv[0] === 'dnsmasq' && argv.some((word) => word.includes(lab.directory)))
  await lab.network.ensureBridge(wish)
  const [first = 0] = await running()
  assert.match(await readFile(`/proc/${first}/status`, 'utf8'), /^Uid:\s+[1-9]/m, 'it does not run as root')
  await lab.another().ensureBridge(wish)
  assert.deepEqual(await running(), [first])
  await endProcess(first, await startTimeOf(first), { graceMs: 0 })
  assert.equal((await lab.network.bridges())[0]?.isActive, false)
  await lab.another().ensureBridge(wish)
  const [second = 0] = await running()
  assert.notEqual(second, 0)
  // A bridge somebody deleted comes back together with a service that listens on the new one.
  await ip.deleteLink(host, lab.bridge)
  await lab.network.ensureBridge(wish)
  assert.notDeepEqual(await running(), [second])
  await lab.network.ensureBridge({ ...wish, dhcp: false })
  assert.deepEqual(await running(), [])
})

test('a bridge whose network changes keeps no old address', async () => {
  await using lab = await node()
  await lab.network.ensureBridge({ name: lab.bridge, cidr: await lab.network.freeSubnet(), nat: false, dhcp: false })
  const cidr = await lab.network.freeSubnet()
  await lab.network.ensureBridge({ name: lab.bridge, cidr, nat: false, dhcp: false })
  const own = await ip.addressesOf(host, lab.bridge)
  assert.deepEqual(
    own.map(({ address }) => address),
    [cidr.replace('.0/24', '.1')],
  )
})

test('a link of somebody else is neither taken over nor removed', async () => {
  await using lab = await node()
  const foreign = lab.bridge
  await ip.addLink(host, foreign, ['type', 'bridge'])
  try {
    await ip.changeLink(host, foreign, { alias: 'hakobune/other' })
    const wish = { name: foreign, cidr: await lab.network.freeSubnet(), nat: false }
    await assert.rejects(
      lab.network.ensureBridge(wish),
      (error) => isFault(error, 'conflict') && /not ours/.test(error.message),
    )
    await lab.network.removeEverything()
    assert.notEqual(await ip.findLink(host, foreign), undefined)
  } finally {
    await ip.deleteLink(host, foreign)
  }
})

test('everything is found and removed without any memory of it', async () => {
  await using lab = await node()
  await lab.network.ensureBridge({ name: lab.bridge, cidr: await lab.network.freeSubnet(), nat: true })
  const { netns } = await lab.network.createIsolated('drill')
  const outer = await lab.network.plug({ vmid: 100, nic: 'net0', mac: 'BC:24:11:00:00:03', bridge: lab.bridge })
  const inner = await lab.network.plug({ vmid: 101, nic: 'net0', mac: 'BC:24:11:00:00:04', bridge: '', netns })
  try {
    // A node of another test that leaves just now turns it off, sees us, and turns it on again.
    const isOn = async () => (await readSysctl(host, 'net/ipv4/ip_forward')) === '1'
    await waitFor(isOn, { what: 'forwarding', timeoutMs: 10_000 })
    await lab.withoutMemory().removeEverything()
    assert.deepEqual(await lab.remains(), nothing)
    await lab.network.removeEverything()
    assert.deepEqual(await lab.network.bridges(), [])
    assert.equal(existsSync(join(lab.settings.runDir, `dnsmasq-${lab.bridge}.leases`)), false)
  } finally {
    closeSync(outer.fd)
    closeSync(inner.fd)
  }
})

test('a free network overlaps no route, no address and no bridge that is only written down', async () => {
  await using lab = await node()
  const first = await lab.network.freeSubnet()
  await lab.network.ensureBridge({ name: lab.bridge, cidr: first, nat: false, dhcp: false })
  assert.notEqual(await lab.network.freeSubnet(), first)
  await ip.deleteLink(host, lab.bridge)
  assert.notEqual(await lab.network.freeSubnet(), first)
})

test('a network that is none, too small, or a range outside of it is refused before anything is made', async () => {
  await using lab = await node()
  const wish = { name: lab.bridge, cidr: '10.181.9.0/24', nat: false }
  const range: readonly [string, string] = ['10.181.8.1', '10.181.8.9']
  for (const wrong of [
    { ...wish, cidr: 'x' },
    { ...wish, cidr: '10.0.0.0/30' },
    { ...wish, name: 'a b' },
    { ...wish, dhcp: { range } },
  ]) {
    await assert.rejects(lab.network.ensureBridge(wrong), (error) => isFault(error, 'invalid'))
  }
  await assert.rejects(lab.network.createIsolated('../x'), (error) => isFault(error, 'invalid'))
  assert.deepEqual(await lab.remains(), nothing)
})
