import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { MethodDescription } from '#rest/describe.ts'
import { type ContractMethod, differencesOf, linesOf } from './conformance.ts'
import { readFacts, reference, report, reviewOf } from './conformance-report.ts'

const theirs: ContractMethod = {
  path: '/things/{thing}',
  method: 'GET',
  params: {
    thing: { type: 'string', optional: true, pattern: '(?:^(?:[a-z0-9\\-_]+)$)' },
    vmid: { type: 'integer', format: 'pve-vmid' },
    kind: { type: 'string', optional: true, enum: ['b', 'a'] },
    net: { type: 'string', format: { bridge: { type: 'string', optional: true }, link_down: { type: 'boolean' } } },
  },
  returns: { type: 'array' },
  permissions: { check: ['perm', '/things', ['B', 'A', 'A'], 'any', 1], moreInProse: true },
}
const ours: MethodDescription = {
  path: '/things/{thing}',
  method: 'GET',
  description: 'Things.',
  params: {
    thing: { type: 'string', pattern: '[a-z0-9_-]+' },
    vmid: { type: 'integer', minimum: 100, maximum: 999_999_999 },
    kind: { type: 'string', optional: true, enum: ['a', 'b'] },
    net: { type: 'string', format: { bridge: { type: 'string', optional: true }, link_down: { type: 'boolean' } } },
  },
  returns: { type: 'array', items: { type: 'object' } },
  permissions: { check: ['perm', '/things', ['A', 'B'], 'any', 1], description: 'In words.' },
}

const withParam = (name: string, schema: Record<string, unknown>): MethodDescription => ({
  ...ours,
  params: { ...ours.params, [name]: schema },
})
const found = (one: MethodDescription) => differencesOf([one], [theirs]).map(({ kind, place }) => [kind, place])

test('what is said in other words is no difference', () => {
  assert.deepEqual(found(ours), [])
})

test('what is said differently is one, down to the keys of a property string', () => {
  assert.deepEqual(found(withParam('vmid', { type: 'integer', minimum: 1, maximum: 999_999_999 })), [
    ['differs', 'vmid'],
  ])
  assert.deepEqual(found(withParam('kind', { type: 'string', enum: ['a', 'b'] })), [['differs', 'kind']])
  assert.deepEqual(found(withParam('thing', { type: 'string', pattern: '[a-z]+' })), [['differs', 'thing']])
  const { net: _, ...others } = ours.params
  assert.deepEqual(found({ ...ours, params: others }), [['missing', 'net']])
  assert.deepEqual(found(withParam('more', { type: 'string' })), [['extra', 'more']])
  const format = { bridge: { type: 'string' }, rate: { type: 'number' } }
  assert.deepEqual(found(withParam('net', { type: 'string', format })), [
    ['missing', 'net, link_down'],
    ['extra', 'net, rate'],
    ['differs', 'net, bridge'],
  ])
  assert.deepEqual(found({ ...ours, permissions: null }), [['differs', '']])
  assert.deepEqual(found({ ...ours, path: '/others' }), [['extra', '']])
  assert.deepEqual(found({ ...ours, path: '/others', own: true }), [])
})

test('a bound of ours alone is told apart from a contradiction', () => {
  assert.deepEqual(found(withParam('thing', { ...ours.params.thing, maxLength: 9 })), [['bound', 'thing']])
})

test('the same difference in several methods is one line', () => {
  const twice = ['GET /a', 'GET /b'].map((method) => ({
    kind: 'missing' as const,
    method,
    place: 'x',
    text: 'is missing',
  }))
  assert.deepEqual(linesOf(twice), ['missing x: is missing\n        in GET /a, GET /b'])
})

test('every difference from the contract is reviewed, and no reviewed one is gone', () => {
  const { added, gone } = reviewOf(readFacts())
  assert.deepEqual({ added, gone }, { added: [], gone: [] }, 'npm run conformance')
})

test('the written report is that of the code', () => {
  assert.equal(readFileSync(join(reference, 'conformance.md'), 'utf8'), report(readFacts()), 'npm run conformance')
})
