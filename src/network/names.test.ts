import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import type { Link } from '#host/network/ip.ts'
import { namesOf } from './names.ts'

const link = (name: string, alias?: string): Link => ({
  name,
  alias,
  index: 1,
  kind: 'bridge',
  mac: '',
  isUp: true,
  mtu: 1500,
  master: undefined,
})

test('every name of the longest instance fits into an interface name', () => {
  const names = namesOf('abcdef')
  for (const name of [names.tap(999_999), names.isolatedBridge]) assert.ok(name.length <= 15, name)
})

test('a note decides whose a link is, and only without one the name', () => {
  const { isOurLink } = namesOf('a')
  assert.equal(isOurLink(link('hka0')), true)
  assert.equal(isOurLink(link('hkat12')), true)
  assert.equal(isOurLink(link('vmbr0', 'hakobune/a')), true)
  assert.equal(isOurLink(link('hka10', 'hakobune/a1')), false)
  assert.equal(isOurLink(link('hkab0')), false)
  assert.equal(isOurLink(link('eth0')), false)
})

test('namespaces of instances that begin alike are told apart', () => {
  assert.equal(namesOf('lab').isOurNetns('hk-lab-drill'), true)
  assert.equal(namesOf('lab').isOurNetns('hk-lab2-drill'), false)
  for (const name of ['', 'A', '../x', '-x', 'x'.repeat(40)]) {
    assert.throws(
      () => namesOf('lab').netns(name),
      (error) => isFault(error, 'invalid'),
    )
  }
})
