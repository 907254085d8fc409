import assert from 'node:assert/strict'
import { registerHooks } from 'node:module'
import { test } from 'node:test'
import { allOperations } from './all.ts'

test('every operation is found under its name, and loaded only then', async () => {
  const loaded: string[] = []
  using _hooks = { [Symbol.dispose]: hooks().deregister }
  function hooks() {
    return registerHooks({ load: (url, context, next) => (loaded.push(url), next(url, context)) })
  }
  assert.ok(allOperations.size > 10)
  for (const [name, load] of allOperations) assert.equal((await load()).name, name)
  assert.ok(loaded.some((url) => url.endsWith('/operations/guest/start.ts')))
})
