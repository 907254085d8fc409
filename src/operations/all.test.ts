/** The table of operations. */
import assert from 'node:assert/strict'
import { registerHooks } from 'node:module'
import { test } from 'node:test'
import { allOperations } from './all.ts'

test('every operation is found under its name, and loaded only then', async () => {
  const loaded: string[] = []
  const hooks = registerHooks({
    load(url, context, next) {
      loaded.push(url)
      return next(url, context)
    },
  })
  try {
    assert.ok(allOperations.size > 10)
    for (const [name, load] of allOperations) assert.equal((await load()).name, name)
    assert.ok(loaded.some((url) => url.endsWith('/operations/guest/start.ts')))
  } finally {
    hooks.deregister()
  }
})
