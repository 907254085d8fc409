import assert from 'node:assert/strict'
import { networkInterfaces } from 'node:os'
import { test } from 'node:test'
import { reachOf } from './reach.ts'

const refusedBy = (addresses: readonly string[], networks?: readonly string[]) =>
  addresses.filter((address) => !reachOf(networks).includes(address))

test('this machine, its links and what clouds tell their machines are not asked, in whatever spelling', () => {
  const own = [
    '127.0.0.1',
    '127.255.255.254',
    '0.0.0.0',
    '169.254.169.254',
    '192.0.0.192',
    '100.100.100.200',
    '255.255.255.255',
    '224.0.0.1',
    '::1',
    '::',
    '::127.0.0.1',
    'fe80::1',
    'fd00:ec2::254',
    'ff02::1',
    '::ffff:127.0.0.1',
    '::ffff:7f00:1',
    '::ffff:169.254.169.254',
    '2002:7f00:1::',
    '2001:0:7f00:1::',
    '64:ff9b::7f00:1',
    '64:ff9b::169.254.169.254',
    '64:ff9b:1::1',
  ]
  assert.deepEqual(refusedBy(own), own)
})

test('the world and private networks are asked', () => {
  const others = [
    '192.0.2.1',
    '10.1.2.3',
    '172.16.0.1',
    '2001:db8::1',
    'fd12::1',
    '64:ff9b::c000:201',
    '::ffff:8.8.8.8',
  ]
  assert.deepEqual(refusedBy(others), [])
})

test('every address of this machine is its own, also those guests see', () => {
  const own = Object.values(networkInterfaces()).flatMap((some = []) => some.map(({ address }) => address))
  assert.ok(own.length > 0)
  assert.deepEqual(refusedBy(own), own)
})

test('the owner allows networks and forbids others, and what is forbidden stays so', () => {
  const networks = ['127.0.0.0/8', '::1', '!10.0.0.0/8', '!127.0.0.7']
  assert.deepEqual(refusedBy(['127.0.0.1', '::1', '::ffff:127.0.0.1'], networks), [])
  const forbidden = ['10.1.2.3', '::ffff:10.1.2.3', '64:ff9b::a01:203', '127.0.0.7', '169.254.169.254']
  assert.deepEqual(refusedBy(forbidden, networks), forbidden)
  for (const wrong of ['10.0.0.0/33', 'lan', '10.0.0.0/8/8', '::/129', '10.0.0.0/']) {
    assert.throws(() => reachOf([wrong]), { fields: { network: `'${wrong}' is no network such as 10.0.0.0/8` } })
  }
})
