/**
 * The network of a machine through the API, by a client that depends on it: the machine is a network namespace with one
 * card, the client another at the other end of the cable.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { nodeFlags } from '#base/node-flags.ts'
import { waitFor } from '#base/clock.ts'
import { machine } from '#host/exec.ts'
import { createNetns, inNetns, removeNetns } from '#host/network/netns.ts'
import { networkRows } from '#host/network/network-state.ts'
import { endProcess } from '#host/programs/proc.ts'
import { parseUpid } from '#tasks/upid.ts'
import { settingsToEnv } from '#settings.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

const host = machine()
const [here, there] = [`hx-hn-${process.pid}-m`, `hx-hn-${process.pid}-c`]
let node: TestNode
let authorization: string
const closing = new AsyncDisposableStack()

before(async () => {
  for (const netns of [here, there]) {
    await createNetns(host, netns)
    closing.defer(() => removeNetns(host, netns))
  }
  const inside = (netns: string, ...words: string[]) => host.run(['ip', '-netns', netns, ...words])
  await inside(here, 'link', 'add', 'name', 'eth0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', there)
  for (const [netns, address] of [
    [here, '10.77.0.2/24'],
    [there, '10.77.0.1/24'],
  ] as const) {
    await inside(netns, 'address', 'add', address, 'dev', 'eth0')
    await inside(netns, 'link', 'set', 'dev', 'eth0', 'up')
  }
  node = closing.use(
    await nodeUnderTest({ netns: here, changes: { apiHost: '0.0.0.0', bridge: 'none', ownsNetwork: true } }),
  )
  const token = await node.api('POST', '/access/users/root@pam/token/client', { privsep: '0' })
  authorization = `PVEAPIToken=root@pam!client=${(token as { value: string }).value}`
})
after(() => closing.disposeAsync())

/** A call by the client over its cable; nothing when the node cannot be reached. */
async function overCable(method: string, path: string, params: Record<string, string> = {}): Promise<unknown> {
  const url = `https://10.77.0.2:${node.settings.apiPort}/api2/json${path}`
  const form = new URLSearchParams(params).toString()
  const data = form === '' ? [] : ['--data', form]
  const curl = ['curl', '-ksS', '--max-time', '2', '-X', method, '--config', '-', ...data, url] as const
  const input = `header = "Authorization: ${authorization}"\n`
  const { code, stdout } = await host.run(inNetns(there, curl), { input, okCodes: [0, 7, 28] })
  if (code !== 0) return undefined
  const body = JSON.parse(stdout) as { data: unknown; errors?: unknown; message?: string }
  assert.equal(body.message, undefined, stdout)
  return body.data
}

const path = () => `/nodes/${node.settings.node}/network`
const ownPath = () => `/hako/network/${node.settings.node}`

async function addressesOf(link: string): Promise<string[]> {
  const rows = (await networkRows(host, { netns: here })).addresses
  return rows.filter((row) => row.link === link && row.family === 'inet').map(({ cidr }) => cidr)
}

/** As clients do: ask until it has stopped. */
async function endOverCable(upid: unknown): Promise<string> {
  const at = `/nodes/${node.settings.node}/tasks/${encodeURIComponent(String(upid))}/status`
  return waitFor(
    async () => {
      const status = (await overCable('GET', at)) as { status: string; exitstatus?: string } | undefined
      return status?.status === 'stopped' ? status.exitstatus : undefined
    },
    { what: 'end of the task', timeoutMs: 60_000, everyMs: 200 },
  )
}

async function untilItWaits(): Promise<void> {
  const waits = async () =>
    ((await node.api('GET', ownPath())) as Record<string, unknown>)['confirm-until'] !== undefined
  await waitFor(waits, { what: 'a change that waits for confirmation', timeoutMs: 60_000 })
}

test('a client moves the address it is talking to onto a bridge, and keeps its change by asking how it goes', async () => {
  await overCable('POST', path(), {
    iface: 'vmbr0',
    type: 'bridge',
    autostart: '1',
    bridge_ports: 'eth0',
    cidr: '10.77.0.2/24',
    comments: 'management',
  })
  const staged = (await node.connection.call('GET', path())) as { changes?: string; data: { iface: string }[] }
  assert.match(String(staged.changes), /^\+iface vmbr0 inet static$/m)
  assert.deepEqual(await addressesOf('vmbr0'), [])

  assert.equal(await endOverCable(await overCable('PUT', path())), 'OK')
  assert.deepEqual([await addressesOf('vmbr0'), await addressesOf('eth0')], [['10.77.0.2/24'], []])
  const shown = (await overCable('GET', `${path()}?type=any_bridge`)) as Record<string, unknown>[]
  assert.deepEqual(
    shown.map(({ iface, active, cidr, netmask, bridge_ports, comments }) => ({
      iface,
      active,
      cidr,
      netmask,
      bridge_ports,
      comments,
    })),
    [
      {
        iface: 'vmbr0',
        active: 1,
        cidr: '10.77.0.2/24',
        netmask: '24',
        bridge_ports: 'eth0',
        comments: 'management\n',
      },
    ],
  )
})

test('a change that cuts the client off is taken back, and says so', async () => {
  await overCable('PUT', `${path()}/vmbr0`, { type: 'bridge', cidr: '10.99.0.2/24' })
  const upid = await overCable('POST', `${ownPath()}/apply`, { 'confirm-within': '3' })
  await untilItWaits()
  assert.deepEqual(await addressesOf('vmbr0'), ['10.99.0.2/24'])
  assert.equal(await overCable('GET', '/version'), undefined, 'the client still reaches the node')
  // Root on the machine itself asks all the time meanwhile: that proves nothing about the cable.
  const { exitstatus, log } = await node.task(upid, /^not confirmed within 3 s: the network was put back as it was$/)
  assert.match(log, /^ip address replace 10\.99\.0\.2\/24 dev vmbr0$/m)
  assert.match(log, /^putting the network back as it was$/m)
  assert.deepEqual(await addressesOf('vmbr0'), ['10.77.0.2/24'])
  assert.notEqual(await overCable('GET', '/version'), undefined)
  // What was wrong can be looked at and corrected.
  const { changes } = (await node.api('GET', ownPath())) as { changes: string }
  assert.match(changes, /^-\taddress 10\.77\.0\.2\/24\n\+\taddress 10\.99\.0\.2\/24$/m)
  await overCable('DELETE', path())
  assert.equal(((await node.api('GET', ownPath())) as { changes: string }).changes, '', exitstatus)
})

test('who applies on the machine itself says that it may stay', async () => {
  await node.api('POST', path(), { iface: 'vmbr1', type: 'bridge', autostart: '1', cidr: '10.78.0.1/24' })
  const upid = await node.api('PUT', path())
  await untilItWaits()
  await node.api('POST', `${ownPath()}/confirm`)
  const { log } = await node.task(upid)
  assert.match(log, /^confirmed by root@pam on this machine$/m)
  await assert.rejects(node.api('POST', `${ownPath()}/confirm`), /no change of the network waits for confirmation/)
})

for (const both of [true, false]) {
  test(`when ${both ? 'daemon and task are' : 'the daemon is'} killed before anybody confirmed, the old network returns`, async () => {
    await node.api('PUT', `${path()}/vmbr0`, { type: 'bridge', cidr: '10.99.0.2/24' })
    const upid = await node.api('POST', `${ownPath()}/apply`, { 'confirm-within': both ? '600' : '3' })
    await untilItWaits()
    await node.kill9()
    const { pid, pstart } = parseUpid(String(upid) as Parameters<typeof parseUpid>[0])
    if (both) await endProcess(pid, pstart, { graceMs: 0 })
    else {
      // The task waits and takes back by itself.
      const isBack = async () => (await addressesOf('vmbr0')).includes('10.77.0.2/24')
      await waitFor(isBack, { what: 'the old network', timeoutMs: 60_000, everyMs: 100 })
    }
    await node.restart()
    await node.task(upid, both ? /^interrupted: undone$/ : /^not confirmed within 3 s/)
    assert.deepEqual(await addressesOf('vmbr0'), ['10.77.0.2/24'])
    assert.notEqual(await overCable('GET', '/version'), undefined)
    await node.api('DELETE', path())
  })
}

test('the command line creates, shows the difference, and forgets it', async () => {
  const entry = join(import.meta.dirname, '../../src/cli/main.ts')
  const env = { ...settingsToEnv(node.settings), LANG: 'C.UTF-8' }
  const hako = async (...words: string[]) => {
    const argv = [process.execPath, ...nodeFlags, entry, 'network', ...words] as const
    return (await host.run(argv, { env })).stdout
  }
  await hako('create', 'vmbr5', '--type', 'bridge', '--cidr', '10.79.0.1/24')
  assert.match(await hako('diff'), /^\+auto vmbr5\n\+iface vmbr5 inet static\n\+\taddress 10\.79\.0\.1\/24$/m)
  assert.deepEqual((await hako('list', '-o', 'id')).trim().split('\n'), ['eth0', 'vmbr0', 'vmbr1', 'vmbr5'])
  await hako('apply', '--confirm-within', '0')
  assert.deepEqual(await addressesOf('vmbr5'), ['10.79.0.1/24'])
  await hako('set', 'vmbr5', '--type', 'bridge', '--mtu', '9000')
  await hako('revert')
  assert.equal((await hako('diff')).trim(), '')
  await hako('delete', 'vmbr5')
  await hako('apply', '--confirm-within', '0')
  assert.deepEqual(await addressesOf('vmbr5'), [])
})

test('after the machine was off, its network is made again', async () => {
  await node.kill9()
  for (const link of ['vmbr0', 'vmbr1']) await host.run(['ip', '-netns', here, 'link', 'delete', 'dev', link])
  await node.restart()
  assert.deepEqual([await addressesOf('vmbr0'), await addressesOf('vmbr1')], [['10.77.0.2/24'], ['10.78.0.1/24']])
  assert.notEqual(await overCable('GET', '/version'), undefined)
})

test('a guest on a bridge that is not there is told which there are', async () => {
  const at = `/nodes/${node.settings.node}/qemu`
  await node.task(await node.api('POST', at, { vmid: '100', memory: '64', net0: 'virtio,bridge=vmbr7' }))
  const { log } = await node.task(await node.api('POST', `${at}/100/status/start`), /bridge 'vmbr7' does not exist/)
  assert.match(log, /there are vmbr0, vmbr1\./)
  await node.api('PUT', `${at}/100/config`, { net0: 'virtio,bridge=vmbr1,tag=5' })
  const refused = await node.task(await node.api('POST', `${at}/100/status/start`), /does not tell VLANs apart/)
  assert.match(refused.log, /bridge_vlan_aware 1/)
})
