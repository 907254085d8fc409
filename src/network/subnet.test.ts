import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/fault.ts'
import {
  addressIn,
  contains,
  formatAddress,
  formatSubnet,
  netmaskOf,
  overlaps,
  parseAddress,
  parseSubnet,
  placeBeside,
} from './subnet.ts'

const address = fc.nat({ max: 2 ** 32 - 1 })
const subnet = fc
  .tuple(address, fc.integer({ min: 0, max: 32 }))
  .map(([at, prefix]) => parseSubnet(`${formatAddress(at)}/${prefix}`))

test('a network reads as people write it', () => {
  assert.equal(formatSubnet(parseSubnet('10.181.3.77/24')), '10.181.3.0/24')
  assert.equal(formatSubnet(parseSubnet('192.0.2.1')), '192.0.2.1/32')
  assert.equal(netmaskOf(20), '255.255.240.0')
  assert.deepEqual(
    [addressIn(parseSubnet('10.0.0.0/24'), 1), addressIn(parseSubnet('10.0.0.0/24'), -2)],
    ['10.0.0.1', '10.0.0.254'],
  )
})

test('what is no network is refused', () => {
  for (const text of [
    '',
    '10.0.0/24',
    '10.0.0.256/24',
    '10.0.0.0/33',
    '10.0.0.01/24',
    'default',
    '::1/128',
    '1.2.3.4/',
  ]) {
    assert.throws(
      () => parseSubnet(text),
      (error) => isFault(error, 'invalid'),
      text,
    )
  }
})

test('addresses and networks survive being written and read', () => {
  fc.assert(fc.property(address, (at) => parseAddress(formatAddress(at)) === at))
  fc.assert(fc.property(subnet, (one) => formatSubnet(parseSubnet(formatSubnet(one))) === formatSubnet(one)))
})

test('two networks overlap exactly when some address is in both', () => {
  fc.assert(
    fc.property(subnet, subnet, (one, other) => {
      const shared = [one.base, other.base].some((at) => contains(one, at) && contains(other, at))
      return overlaps(one, other) === shared && overlaps(other, one) === shared
    }),
  )
})

test('whom a guest can answer stands in its own network, at best where its gateway is', () => {
  const known = parseSubnet('10.181.255.1/24')
  const beside = (cidr: string, gateway?: string) => {
    const [address = '', prefix] = cidr.split('/')
    return placeBeside({ address, prefix: Number(prefix), gateway }, known)
  }
  assert.equal(beside('192.168.1.5/24'), '192.168.1.1')
  assert.equal(beside('192.168.1.1/24'), '192.168.1.2')
  assert.equal(beside('192.168.1.5/24', '192.168.1.254'), '192.168.1.254')
  assert.equal(beside('192.0.2.1/31'), '192.0.2.0')
  assert.equal(beside('192.0.2.7/32', '198.51.100.1'), '198.51.100.1')
  assert.equal(beside('192.0.2.7/32'), undefined)
  assert.equal(beside('10.181.255.60/24'), undefined)
  assert.equal(beside('no address/24'), undefined)
})
