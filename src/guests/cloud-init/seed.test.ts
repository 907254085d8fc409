import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parse } from 'yaml'
import type { Options } from '../config.ts'
import { isCloudInit } from '../qemu/drive.ts'
import { optionErrors, privilegeFor } from '../qemu/options.ts'
import { netmaskOf, networkConfigV1, networkOf } from './network.ts'
import { seedOf, textOf } from './seed.ts'

const ofNode = { servers: ['192.0.2.1'], search: ['example.org'] }
const facts = { vmid: 100, dns: ofNode, snippets: {} }
const card = { net0: 'virtio=BC:24:11:00:00:01' }
const subnetsOf = (options: Options) =>
  (networkConfigV1(networkOf({ ...card, ...options }, ofNode)) as { config: { subnets?: unknown }[] }).config
const idOf = (options: Options, more = {}) =>
  (parse(textOf(seedOf(options, { ...facts, ...more }).parts.meta)) as Record<string, string>)['instance-id']

test('a card of which nothing is said asks by DHCP, and learns name servers there', () => {
  assert.deepEqual(subnetsOf({}), [
    { type: 'physical', name: 'eth0', mac_address: 'bc:24:11:00:00:01', subnets: [{ type: 'dhcp4' }] },
  ])
  assert.deepEqual(subnetsOf({ ipconfig0: 'ip6=auto' }).at(0)?.subnets, [{ type: 'ipv6_slaac' }])
  assert.deepEqual(subnetsOf({ ipconfig0: 'ip=manual' }).at(0)?.subnets, [{ type: 'manual' }])
})

test('name servers of the node are for guests that learn none in another way', () => {
  const resolver = { type: 'nameserver', address: ['192.0.2.1'], search: ['example.org'] }
  assert.deepEqual(subnetsOf({ ipconfig0: 'ip=10.0.0.2/8' }).at(-1), resolver)
  const own = subnetsOf({ ipconfig0: 'ip=10.0.0.2/8', searchdomain: 'a.example b.example' }).at(-1)
  assert.deepEqual(own, { type: 'nameserver', search: ['a.example', 'b.example'] })
})

test('masks are written out', () => {
  assert.equal(netmaskOf('10.0.0.1', 23), '255.255.254.0')
  assert.equal(netmaskOf('10.0.0.1', 0), '0.0.0.0')
  assert.equal(netmaskOf('2001:db8::1', 60), 'ffff:ffff:ffff:fff0:0:0:0:0')
})

test('a guest is another to cloud-init when what it is told changes, and not when its node does', () => {
  const smbios1 = 'uuid=11111111-2222-4333-8444-555555555555'
  const options = { ...card, name: 'web', smbios1, memory: '512', ipconfig0: 'ip=10.0.0.2/8' }
  const id = idOf(options)
  assert.equal(idOf({ ...options, memory: '1024', description: 'x' }), id)
  assert.equal(idOf({ ...options, net0: 'virtio=BC:24:11:00:00:01,bridge=vmbr1' }), id)
  assert.equal(idOf(options, { dns: { servers: [], search: [] } }), id)
  const changes: Options[] = [
    { name: 'db' },
    { ciuser: 'ann' },
    { net0: 'virtio=BC:24:11:00:00:02' },
    { smbios1: 'uuid=11111111-2222-4333-8444-555555555556' },
    { ciupgrade: '0' },
  ]
  const ids = [id, ...changes.map((change) => idOf({ ...options, ...change }))]
  ids.push(
    idOf(options, { snippets: { user: Buffer.from('a') } }),
    idOf(options, { snippets: { user: Buffer.from('b') } }),
  )
  assert.equal(new Set(ids).size, ids.length)
})

test('whatever a key says comes out as it went in', () => {
  const comment = fc
    .string({ unit: 'grapheme', maxLength: 40 })
    .filter((text) => !/\p{Cc}|\u2028|\u2029|\u0085/u.test(text))
  fc.assert(
    fc.property(comment, (text) => {
      const key = `ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA ${text}`.trim()
      const options = { sshkeys: encodeURIComponent(key) }
      assert.deepEqual(optionErrors(options), {})
      const user = parse(textOf(seedOf(options, facts).parts.user)) as Record<string, unknown>
      assert.deepEqual(user.ssh_authorized_keys, [key])
    }),
  )
})

test('Windows gets a config drive, everybody else the plain one; a choice is a choice', () => {
  assert.equal(seedOf({ ostype: 'win11' }, facts).label, 'config-2')
  assert.equal(seedOf({ ostype: 'l26' }, facts).label, 'cidata')
  assert.equal(seedOf({ ostype: 'win11', citype: 'nocloud' }, facts).label, 'cidata')
  const custom = { ...facts, snippets: { network: Buffer.from('auto lo\n'), vendor: Buffer.from('#cloud-config\n') } }
  const { files } = seedOf({ citype: 'configdrive2' }, custom)
  assert.equal(textOf(files['openstack/content/0000'] ?? ''), 'auto lo\n')
  assert.deepEqual(JSON.parse(textOf(files['openstack/latest/vendor_data.json'] ?? '')), {
    'cloud-init': '#cloud-config\n',
  })
})

test('the drive is known by its name, and takes the right to cloud-init', () => {
  for (const text of [
    'local:cloudinit',
    'file=local:cloudinit,media=cdrom',
    'a-b:100/vm-100-cloudinit.qcow2,size=4M',
  ]) {
    assert.ok(isCloudInit(text), text)
    assert.equal(privilegeFor('ide2', text), 'VM.Config.Cloudinit')
  }
  for (const text of [
    'local:iso/cloudinit',
    'local:100/vm-100-disk-0.raw',
    'none,media=cdrom',
    'local:8,serial=x:cloudinitx',
  ]) {
    assert.ok(!isCloudInit(text), text)
  }
  assert.equal(privilegeFor('sshkeys', undefined), 'VM.Config.Cloudinit')
})
