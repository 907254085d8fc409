/** Each named format, by examples on both sides of its border. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { checkFormat, isFormatName, splitList } from './formats.ts'

const good: Readonly<Record<string, readonly string[]>> = {
  'pve-vmid': ['100', '999999999'],
  'pve-node': ['a', 'node-1', 'N'],
  'pve-configid': ['ab', 'snap_1', 'a-b'],
  'pve-storage-id': ['local', 'a.b', 'a1'],
  'pve-volume-id': ['local:iso/a.iso', 'a1:b', 'local:backup/vm/100/2026-11-20T10:00:00Z'],
  'pve-iface': ['eth0', 'vmbr0.100', 'bond0:1', 'ab'],
  'pve-userid': ['root@pam', 'a.b@pve'],
  'pve-tokenid': ['root@pam!ci'],
  'pve-poolid': ['a', 'a/b', 'a/b/c'],
  'pve-upid': [
    'UPID:lab:0000ABCD:00112233:65000000:qmstart:100:root@pam:',
    'UPID:lab:0000ABCD:001122334:65000000:vzdump::ann@pve!ci:',
  ],
  'pve-startup-order': ['1', 'order=1', 'order=1,up=2,down=3', 'up=5', '1,down=0'],
  'disk-size': ['32', '32G', '1.5T', '4MiB'],
  'mac-addr': ['BC:24:11:00:00:01', '02:aa:bb:cc:dd:ee'],
  'dns-name': ['a', 'a.b-c.d', `${'a'.repeat(63)}.b`],
  urlencoded: ['', 'ssh-rsa%20AAAA'],
  ipv4mask: ['255.255.255.0', '0.0.0.0', '255.255.255.255'],
  CIDRv4: ['10.0.0.0/24', '0.0.0.0/0'],
  CIDRv6: ['fd00::/64', '::/0'],
  CIDR: ['10.0.0.0/8', 'fd00::1/128'],
  'pve-ipv4-config': ['dhcp', 'manual', '10.0.0.1/24'],
  'pve-ipv6-config': ['auto', 'dhcp', 'fd00::1/64'],
  address: ['10.0.0.1', 'fd00::1', 'host.example'],
  'storage-pair': ['1', 'local', 'local:fast'],
  'bridge-pair': ['1', 'vmbr0:vmbr1'],
  'pve-task-status-type': ['ok', 'unknown'],
}

const bad: Readonly<Record<string, readonly string[]>> = {
  'pve-vmid': ['99', '0100', '1000000000', '', '100\n'],
  'pve-node': ['-a', 'a-', 'a.b', '', 'a_b', 'a\n'],
  'pve-configid': ['a', '1a', 'a.b'],
  'pve-storage-id': ['a', '1a', 'a-', '../x'],
  'pve-volume-id': ['local', 'local:', ':a', 'local:a b'],
  'pve-iface': ['a', '0eth', 'a'.repeat(21), 'eth0.', 'eth0.1.2'],
  'pve-userid': ['root', '@pam', 'a b@pam', 'a@', 'a/b@pam', `${'a'.repeat(61)}@pam`],
  'pve-tokenid': ['root@pam', 'root@pam!', 'root@pam!1'],
  'pve-poolid': ['', '/', 'a//b', 'a/b/c/d'],
  'pve-upid': ['', 'UPID:', 'UPID:lab:0:0:0:x:y:root@pam:', 'UPID:lab:0000ABCD:00112233:65000000::100:root@pam:'],
  'pve-startup-order': ['', '1up=2', 'up=1,up=2', '1,order=2', 'down', ','],
  'disk-size': ['', 'G', '-1G', '1 G', '1P'],
  'mac-addr': ['01:00:00:00:00:00', 'BC:24:11:00:00', 'BC-24-11-00-00-01'],
  'dns-name': ['', '.', 'a..b', '-a', 'a_b', `${'a'.repeat(64)}`],
  urlencoded: ['a b', 'a"'],
  ipv4mask: ['255.0.255.0', '0.0.0.1', '256.0.0.0', '24'],
  CIDRv4: ['10.0.0.0', '10.0.0.0/33', '10.0.0/24', '10.0.0.0/24/1', 'fd00::/64'],
  CIDRv6: ['fd00::/129', 'fd00::'],
  CIDR: ['', 'x/1'],
  'pve-ipv4-config': ['auto', ''],
  'pve-ipv6-config': ['10.0.0.1/24'],
  address: ['', 'a b'],
  'storage-pair': ['', 'a1:b1:c1', '1a:b'],
  'bridge-pair': ['', 'a b'],
  'pve-task-status-type': ['OK', ''],
}

describe('formats', () => {
  for (const [name, texts] of Object.entries(good)) {
    test(`${name} takes ${texts.map((text) => `'${text}'`).join(' ')}`, () => {
      for (const text of texts) assert.equal(checkFormat(name, text), undefined, text)
    })
  }
  for (const [name, texts] of Object.entries(bad)) {
    test(`${name} refuses ${JSON.stringify(texts)}`, () => {
      for (const text of texts) assert.notEqual(checkFormat(name, text), undefined, text)
    })
  }
})

test('a list is good when each part is', () => {
  assert.equal(checkFormat('pve-vmid-list', '100, 101;102\x00103'), undefined)
  assert.notEqual(checkFormat('pve-vmid-list', '100,99'), undefined)
  assert.equal(checkFormat('pve-vmid-list', ''), undefined)
})

test('an -opt format also takes the empty text', () => {
  assert.equal(checkFormat('pve-node-opt', ''), undefined)
  assert.notEqual(checkFormat('pve-node-opt', '-'), undefined)
})

test('a name nobody defined is our own mistake and throws', () => {
  for (const name of ['no-such-format', 'constructor', '__proto__', 'toString']) {
    assert.equal(isFormatName(name), false)
    assert.throws(() => checkFormat(name, 'x'), /no format is called/)
  }
  assert.ok(isFormatName('pve-vmid-list') && isFormatName('pve-node-opt'))
})

test('splitting and joining a list gives the same parts', () => {
  const part = fc.stringMatching(/^[a-z0-9:/.-]{1,8}$/)
  const separator = fc.constantFrom(',', ';', ' ', '\x00', '\n', ', ')
  fc.assert(
    fc.property(fc.array(part), separator, (parts, by) => {
      assert.deepEqual(splitList(parts.join(by)), parts)
    }),
  )
})

test('no format takes a text with a line break, whatever else it holds', () => {
  const names = Object.keys(good)
  fc.assert(
    fc.property(fc.constantFrom(...names), fc.nat(10), (name, pick) => {
      const texts = good[name] ?? []
      const text = texts[pick % texts.length] ?? ''
      assert.notEqual(checkFormat(name, `${text}\n`), undefined)
    }),
  )
})
