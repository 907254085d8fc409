/** The lock on a folder, among processes and within one. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { holdFolder } from './folder-lock.ts'

const timeoutMs = 30_000

async function place(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'hako-lock-'))
  t.after(() => rm(directory, { recursive: true }))
  return directory
}

test('the second waits until the first is done, and nothing stays', async (t) => {
  const path = await place(t)
  const order: string[] = []
  const first = await holdFolder(path, { timeoutMs })
  const second = holdFolder(path, { timeoutMs }).then(async (lock) => {
    order.push('second')
    await lock[Symbol.asyncDispose]()
  })
  await setImmediate()
  order.push('first done')
  await first[Symbol.asyncDispose]()
  await second
  assert.deepEqual(order, ['first done', 'second'])
  assert.deepEqual(await readdir(path), [])
})

test('a holder that is killed holds nothing any more', async (t) => {
  const path = await place(t)
  const source = `
    const { holdFolder } = await import(${JSON.stringify(join(import.meta.dirname, 'folder-lock.ts'))})
    await holdFolder(process.argv[1], { timeoutMs: 1000 })
    console.log('held')
    setInterval(() => {}, 1000)`
  const flags = ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', source, path]
  const holder = spawn(process.execPath, flags, { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(holder.stdout, 'data')
  await assert.rejects(holdFolder(path, { timeoutMs: 50 }), { kind: 'timeout' })
  holder.kill('SIGKILL')
  await using _lock = await holdFolder(path, { timeoutMs })
})

test('a wait can be given up', async (t) => {
  const path = await place(t)
  await using _first = await holdFolder(path, { timeoutMs })
  const stop = new AbortController()
  const second = holdFolder(path, { timeoutMs, signal: stop.signal })
  stop.abort()
  await assert.rejects(second)
})
