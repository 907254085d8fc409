/** Targets of requests. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { splitTarget } from './wire.ts'

test('path and query part at the first question mark, the absolute form is understood', () => {
  assert.deepEqual(splitTarget('/a/b?x=1?y'), { path: '/a/b', query: 'x=1?y' })
  assert.deepEqual(splitTarget('https://host:8006/a?b'), { path: '/a', query: 'b' })
  assert.deepEqual(splitTarget('https://host'), { path: '/', query: '' })
  assert.deepEqual(splitTarget('/a#f'), { path: '/a', query: '' })
})
