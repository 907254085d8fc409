/** The lock under which the guest image is built. */
import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { holdLock } from './build-lock.ts'

async function place(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'hako-lock-'))
  t.after(() => rm(directory, { recursive: true }))
  return join(directory, 'lock')
}

test('the second waits until the first is done, and nothing stays', async (t) => {
  const path = await place(t)
  const order: string[] = []
  const first = await holdLock(path)
  const second = holdLock(path).then(async (lock) => {
    order.push('second')
    await lock[Symbol.asyncDispose]()
  })
  await setImmediate()
  order.push('first done')
  await first[Symbol.asyncDispose]()
  await second
  assert.deepEqual(order, ['first done', 'second'])
  assert.deepEqual(await readdir(join(path, '..')), [])
})

test('a lock whose holder is dead, or whose number is another process now, is taken over', async (t) => {
  const path = await place(t)
  for (const left of ['4194305 -', '4194305 77', `${process.pid} 1`, '']) {
    await writeFile(path, left)
    await using _lock = await holdLock(path)
    assert.match(await readFile(path, 'utf8'), new RegExp(`^${process.pid} \\d+$`))
  }
})

test('a wait can be given up', async (t) => {
  const path = await place(t)
  await using _lock = await holdLock(path)
  await assert.rejects(holdLock(path, { signal: AbortSignal.timeout(50) }), /interrupted|aborted due to timeout/)
})
