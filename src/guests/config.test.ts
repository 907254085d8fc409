import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import { digestOf, normalTags, optionsInForce, pendingItems, requireDigest, revertOptions, takeBack } from './config.ts'

const options = fc.dictionary(
  fc.constantFrom('name', 'cores', 'memory', 'net0', 'scsi0', 'tags'),
  fc.string({ maxLength: 5 }),
  {
    noNullPrototype: true,
  },
)

test('the digest is that of the options, in whatever order they were written', () => {
  assert.equal(digestOf({ name: 'a', cores: '2' }), digestOf({ cores: '2', name: 'a' }))
  assert.match(digestOf({}), /^[0-9a-f]{40}$/)
  fc.assert(
    fc.property(options, options, (a, b) => {
      const isSame = isDeepStrictEqual(a, b)
      assert.equal(digestOf(a) === digestOf(b), isSame)
    }),
  )
})

test('a digest that is no longer true is refused in the words clients know', () => {
  const config = { options: {}, digest: digestOf({}) }
  requireDigest(config, undefined)
  requireDigest(config, digestOf({}))
  assert.throws(() => requireDigest(config, digestOf({ name: 'a' })), /detected modified configuration/)
})

test('hardware of a running guest stays in force, its name does not wait', () => {
  const config = {
    digest: '',
    options: { name: 'new', cores: '2', net1: 'virtio' },
    running: { name: 'old', cores: '1' },
  }
  assert.deepEqual(optionsInForce(config), { name: 'new', cores: '1' })
  assert.deepEqual(pendingItems(config), [
    { key: 'cores', value: '1', pending: '2', isDeleted: false },
    { key: 'name', value: 'new', isDeleted: false },
    { key: 'net1', pending: 'virtio', isDeleted: false },
  ])
})

test('reverting everything leaves nothing pending', () => {
  fc.assert(
    fc.property(options, options, (wanted, running) => {
      const config = { options: wanted, running, digest: '' }
      const names = pendingItems(config).map(({ key }) => key)
      const after = { ...config, options: revertOptions(config, names) }
      assert.ok(pendingItems(after).every(({ pending, isDeleted }) => pending === undefined && !isDeleted))
    }),
  )
})

test('taking a change back restores what was, and spares what somebody else changed since', () => {
  fc.assert(
    fc.property(options, options, (before, written) => assert.deepEqual(takeBack(written, before, written), before)),
  )
  assert.deepEqual(takeBack({ name: 'theirs', cores: '2' }, { name: 'old', cores: '1' }, { name: 'old', cores: '2' }), {
    name: 'theirs',
    cores: '1',
  })
})

test('tags have one spelling', () => {
  assert.equal(normalTags('b, A;b c'), 'a;b;c')
  assert.equal(normalTags(''), '')
})
