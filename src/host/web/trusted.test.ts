/** Whom connections believe: read once for the same authorities, anew for others. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { trusted, trusting } from './trusted.ts'

test('the same authorities are read once, however many connections believe them', async () => {
  const all = await trusted()
  assert.ok(all.length > 1)
  const first = trusting(all)
  assert.equal(trusting([...all]), first)
  const fewer = trusting(all.slice(1))
  assert.notEqual(fewer, first)
  assert.equal(trusting(all.slice(1)), fewer)
})
