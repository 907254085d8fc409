import assert from 'node:assert/strict'
import { argon2Sync } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { argon2id, standardCost } from './argon2id.ts'

test('it is argon2id as Node has it, at any cost, of any secret', async () => {
  const cost = fc.record({
    memoryKiB: fc.integer({ min: 64, max: 1024 }),
    passes: fc.integer({ min: 1, max: 4 }),
    lanes: fc.integer({ min: 1, max: 8 }),
  })
  const salt = fc.uint8Array({ minLength: 8, maxLength: 48 })
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: 'grapheme', maxLength: 80 }), salt, cost, async (message, nonce, at) => {
      const [memory, passes, parallelism, tagLength] = [at.memoryKiB, at.passes, at.lanes, 32]
      const wanted = argon2Sync('argon2id', { message, nonce, memory, passes, parallelism, tagLength })
      assert.ok((await argon2id(message, Buffer.from(nonce), at)).equals(wanted))
    }),
    { numRuns: 60 },
  )
})

test('the event loop goes on meanwhile', async () => {
  let turns = 0
  const timer = setInterval(() => (turns += 1), 1)
  const hash = await argon2id('a passphrase', Buffer.alloc(16, 1), standardCost)
  clearInterval(timer)
  assert.equal(hash.length, 32)
  assert.ok(turns > 5, `${turns} turns`)
})
