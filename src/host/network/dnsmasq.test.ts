import assert from 'node:assert/strict'
import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { createBridge } from './bridge.ts'
import {
  type DhcpWish,
  dhcpInodes,
  dnsmasqArgv,
  ensureDhcp,
  isDhcpRunning,
  parseLeases,
  removeDhcp,
} from './dnsmasq.ts'
import { machine } from '../exec.ts'
import { createNetns, removeNetns } from './netns.ts'
import { parseNameServers } from './resolver.ts'

const wish: DhcpWish = {
  bridge: 'hklab0',
  range: ['10.181.0.51', '10.181.0.254'],
  netmask: '255.255.255.0',
  router: '10.181.0.1',
  nameServers: ['192.0.2.53', '192.0.2.54'],
  runDir: '/run/hakobune/lab',
  label: 'hklab0',
}

test('the command line of a service', () => {
  assert.deepEqual(dnsmasqArgv(wish, 'dnsmasq'), [
    'dnsmasq',
    '--conf-file=/dev/null',
    '--keep-in-foreground',
    '--user=dnsmasq',
    '--group=nogroup',
    '--pid-file=/run/hakobune/lab/dnsmasq-hklab0.pid',
    '--dhcp-leasefile=/run/hakobune/lab/dnsmasq-hklab0.leases',
    '--log-facility=-',
    '--quiet-dhcp',
    '--port=0',
    '--no-hosts',
    '--no-resolv',
    '--interface=hklab0',
    '--except-interface=lo',
    '--bind-interfaces',
    '--dhcp-range=10.181.0.51,10.181.0.254,255.255.255.0,12h',
    '--no-ping',
    '--dhcp-authoritative',
    '--dhcp-rapid-commit',
    '--dhcp-option=option:router,10.181.0.1',
    '--dhcp-option=option:dns-server,192.0.2.53,192.0.2.54',
  ])
  const isolated = dnsmasqArgv({ ...wish, router: undefined, nameServers: [] }, 'nobody')
  assert.ok(isolated.includes('--dhcp-option=option:router'))
})

test('recorded leases are read, with and without names, without those of IPv6', () => {
  const text = `1795256000 BC:24:11:0a:1b:2c 10.181.0.77 web ff:11:0a:1b:2c
0 bc:24:11:0a:1b:2d 10.181.0.78 * *
duid 00:01:00:01:30:00
1795256000 12345 fd00::77 web 00:01
`
  assert.deepEqual(parseLeases(text), [
    { mac: 'bc:24:11:0a:1b:2c', ip: '10.181.0.77', expires: 1_795_256_000, name: 'web' },
    { mac: 'bc:24:11:0a:1b:2d', ip: '10.181.0.78', expires: 0, name: undefined },
  ])
  assert.deepEqual(parseLeases(''), [])
})

test('a listening DHCP socket is told from others', () => {
  const table = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  101: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 31337 2 0000000000000000 0
  102: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 31338 2 0000000000000000 0
`
  assert.deepEqual(dhcpInodes(table), ['31337'])
})

test('name servers a guest cannot reach are left out', () => {
  const text = '# x\nnameserver 127.0.0.53\nnameserver 10.0.0.53\nnameserver fd00::53\noptions edns0\n'
  assert.deepEqual(parseNameServers(text), ['10.0.0.53'])
})

test('a service that cannot start says why, and leaves nothing running', async () => {
  const host = machine()
  const netns = `hx-dhcp-${process.pid}`
  const runDir = await mkdtemp(join(tmpdir(), 'hk-dhcp-'))
  await chmod(runDir, 0o711)
  const here = { ...wish, runDir, netns, bridge: 'br0', label: 'x' }
  try {
    await createNetns(host, netns)
    await assert.rejects(ensureDhcp(here), (error) => isFault(error, 'failed') && /br0/.test(error.message))
    assert.equal(await isDhcpRunning(here), false)
    await createBridge(host, { name: 'br0', address: '10.181.0.1/24', mac: 'BC:24:11:00:00:01', alias: 'x', netns })
    const { pid } = await ensureDhcp(here)
    assert.deepEqual(await ensureDhcp(here), { pid })
    const other = await ensureDhcp({ ...here, range: ['10.181.0.60', '10.181.0.61'] })
    assert.notEqual(other.pid, pid)
    await removeDhcp(here)
    assert.deepEqual(await readdir(runDir), [])
  } finally {
    await removeDhcp(here)
    await removeNetns(host, netns)
    await rm(runDir, { recursive: true })
  }
})
