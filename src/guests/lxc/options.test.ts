/** What a container's options mean, and which of them go together. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { asVmid } from '#base/ids.ts'
import { isFault } from '#base/fault.ts'
import type { ConfigChange, Options } from '../config.ts'
import { planChange } from './change.ts'
import { leastUsed, processorsIn } from './limits.ts'
import { liveNames } from './live.ts'
import { unprivilegedMap } from './idmap.ts'
import { idsOfMount, idsOnDisk, rootOfMount } from './mount-ids.ts'
import { mountOf, wishOf } from './mountpoint.ts'
import { isRootOnly, optionErrors, optionsToReply } from './options.ts'
import { toldOf } from './told.ts'

const vmid = asVmid(100)
const rootfs = 'local:100/subvol-100-disk-0.subvol'
const plan = (options: Options, change: Partial<ConfigChange>, force = false) =>
  planChange(vmid, { options, digest: '' }, { set: {}, delete: [], revert: [], ...change }, force)

test('a mount says what it wants: a new volume, one that is there, a folder of the node', () => {
  const wish = (text: string) => wishOf(mountOf('mp0', `${text},mp=/srv`))
  assert.deepEqual(wish('local:0.5'), { kind: 'allocate', storage: 'local', sizeBytes: 2 ** 29 })
  assert.deepEqual(wish('local:100/vm-100-disk-1.raw'), { kind: 'volume', volid: 'local:100/vm-100-disk-1.raw' })
  assert.deepEqual(wish('/mnt/x'), { kind: 'path', path: '/mnt/x' })
})

test('options that do not go together are refused by name', () => {
  const errors = optionErrors({
    rootfs: '/etc',
    mp0: 'local:1,mp=/a/',
    mp1: 'local:1,mp=/a',
    mp2: 'local:1,mp=/',
    mp3: 'somewhere,mp=/b',
    net0: 'name=eth0,tag=5',
    net1: 'name=eth0',
    net2: 'name=lo',
    net3: 'name=eth3,host-managed=1,ip=dhcp',
    mp4: 'local:1,mp=/d,idmap=u:70000:0:1',
    mp5: 'local:1,mp=/e,idmap=u:0:0:9;u:5:20:1',
    mp6: 'local:1,mp=/f,quota=1',
    features: 'mount=nfs',
  })
  assert.deepEqual(
    Object.keys(errors).toSorted(),
    'features mp1 mp2 mp3 mp4 mp5 mp6 net0 net1 net2 net3 rootfs'.split(' '),
  )
})

test('features and ids are refused where the kernel would not give them', () => {
  const refused = (options: Record<string, string>) => Object.keys(optionErrors({ rootfs, ...options }))
  assert.deepEqual(refused({ features: 'mount=tmpfs;fuse,force_rw_sys=1,nesting=1' }), [])
  assert.deepEqual(refused({ features: 'mknod=1' }), ['features'])
  assert.deepEqual(refused({ unprivileged: '0', features: 'mknod=1,mount=nfs;cifs' }), [])
  assert.deepEqual(refused({ unprivileged: '0', features: 'force_rw_sys=1' }), ['features'])
  assert.deepEqual(refused({ mp0: 'local:1,mp=/a,idmap=passthrough' }), [])
  assert.deepEqual(refused({ mp0: 'local:1,mp=/a,idmap=u:1000:1000:1;g:100:100:1' }), [])
  assert.deepEqual(refused({ unprivileged: '0', mp0: 'local:1,mp=/a,idmap=passthrough' }), ['mp0'])
})

test('ids of a mount that are named are those of the disk, and a kind nobody names is as it is', () => {
  assert.deepEqual(idsOfMount({}, 'u:1000:33:2'), [
    { kind: 'uid', inside: 33, outside: 101_000, count: 2 },
    { kind: 'gid', inside: 100_000, outside: 100_000, count: 65_536 },
  ])
  assert.equal(idsOfMount({}, undefined), undefined)
  // The other way round: of whom inside are the ids on the disk.
  assert.deepEqual(idsOnDisk({}, 'u:1000:33:2'), [
    { kind: 'uid', inside: 1000, outside: 33, count: 2 },
    { kind: 'gid', inside: 0, outside: 100_000, count: 65_536 },
  ])
  assert.deepEqual(idsOnDisk({}, undefined), unprivilegedMap)
  assert.deepEqual([idsOnDisk({}, 'passthrough'), idsOnDisk({ unprivileged: '0' }, undefined)], [undefined, undefined])
  assert.deepEqual(
    [rootOfMount({}, 'passthrough'), rootOfMount({}, 'u:0:5:1'), rootOfMount({}, 'u:9:5:1')],
    [0, 5, 100_000],
  )
})

test('root alone gives what reaches past the container', () => {
  assert.ok(isRootOnly('mp0', '/etc,mp=/x'))
  assert.ok(isRootOnly('mp0', 'local:1,mp=/x,idmap=passthrough'))
  assert.ok(isRootOnly('features', 'nesting=1,fuse=1'))
  assert.ok(isRootOnly('unprivileged', '0'))
  assert.ok(isRootOnly('dev0', '/dev/null'))
  assert.ok(!isRootOnly('mp0', 'local:1,mp=/x'))
  assert.ok(!isRootOnly('features', 'nesting=1,fuse=0'))
  assert.ok(!isRootOnly('unprivileged', '1'))
})

test('a mount that leaves its place stays as unused, until that goes too', () => {
  const mp0 = 'local:100/vm-100-disk-1.raw,mp=/srv,size=1G'
  const left = plan({ rootfs, mp0 }, { delete: ['mp0'] })
  assert.deepEqual(left.options, { rootfs, unused0: 'local:100/vm-100-disk-1.raw' })
  assert.deepEqual(left.free, [])
  assert.deepEqual(plan(left.options, { delete: ['unused0'] }).free, ['local:100/vm-100-disk-1.raw'])
  assert.deepEqual(plan({ rootfs, mp0 }, { delete: ['mp0'] }, true).free, ['local:100/vm-100-disk-1.raw'])
  const back = plan(left.options, { set: { mp3: mp0 } })
  assert.deepEqual([back.options.unused0, back.make], [undefined, ['mp3']])
  const refused = (change: Partial<ConfigChange>) =>
    assert.throws(
      () => plan({ rootfs, mp0 }, change),
      (fault) => isFault(fault, 'invalid'),
    )
  refused({ delete: ['rootfs'] })
  refused({ delete: ['unprivileged'] })
  refused({ set: { mp1: mp0.replace('/srv', '/other') } })
  refused({ set: { unused1: 'local:100/vm-100-disk-9.raw' } })
})

test('processors are shared out so that the least used come first', () => {
  assert.equal(leastUsed(2, [0, 1, 2, 3], [[0, 1], [0]]), '2,3')
  assert.equal(leastUsed(3, [0, 1, 2, 3], [[0, 1], [0]]), '1,2,3')
  assert.deepEqual(processorsIn('0-2,5\n'), [0, 1, 2, 5])
})

test('limits are changed while it runs, the rest waits', () => {
  const changed = liveNames({ memory: '64', cores: '1' }, { memory: '96', cores: '2', cpulimit: '1', hostname: 'x' })
  assert.deepEqual(changed, ['memory', 'cpulimit'])
})

test('of its cards what needs no new card is changed at once', () => {
  const card = 'name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,type=veth'
  const isLive = (after: string | undefined, before = card) =>
    liveNames({ net0: before }, after === undefined ? {} : { net0: after }).length > 0
  for (const more of ['rate=2', 'link_down=1', 'tag=7', 'mtu=1400', 'firewall=1', 'ip=192.0.2.1/24']) {
    assert.equal(isLive(`${card},${more}`), true, more)
  }
  assert.equal(isLive(card.replace('vmbr0', 'vmbr1')), true)
  assert.equal(isLive(`${card},ip=192.0.2.2/24`, `${card},ip=192.0.2.1/24,gw=192.0.2.9`), true)
  for (const after of [undefined, card.replace('eth0', 'eth1'), card.replace(':01', ':02'), `${card},ip=dhcp`]) {
    assert.equal(isLive(after), false, String(after))
  }
  assert.equal(isLive(`${card},ip=192.0.2.1/24,host-managed=1`), false)
  assert.deepEqual(liveNames({}, { net0: card }), [])
})

test('replies have numbers and truth where clients expect them', () => {
  const reply = optionsToReply({ memory: '512', cpulimit: '1.5', unprivileged: '1', hostname: 'web', onboot: '0' })
  assert.deepEqual(reply, { memory: 512, cpulimit: 1.5, unprivileged: true, hostname: 'web', onboot: false })
})

test('a container is told what its options say, and what holds for the node where they say nothing', () => {
  const ofNode = { dns: { servers: ['192.0.2.53'], search: ['example.invalid'] }, timezone: 'Europe/Vienna' }
  const told = toldOf(100, { net0: 'name=eth0,ip=dhcp', net1: 'name=eth1,host-managed=1,ip=192.0.2.4/24' }, ofNode)
  assert.deepEqual(told, {
    hostname: 'CT100',
    nics: [
      { name: 'eth0', ip4: { kind: 'dhcp' }, ip6: undefined },
      { name: 'eth1', ip4: { kind: 'manual' }, ip6: undefined },
    ],
    dns: ofNode.dns,
    ttys: 2,
    timezone: undefined,
  })
  const own = toldOf(
    100,
    { hostname: 'a.b', nameserver: '192.0.2.1 192.0.2.2', timezone: 'host', console: '0' },
    ofNode,
  )
  assert.deepEqual(
    [own.hostname, own.dns.servers, own.timezone, own.ttys],
    ['a.b', ['192.0.2.1', '192.0.2.2'], 'Europe/Vienna', 0],
  )
})
