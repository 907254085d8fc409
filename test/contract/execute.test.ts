/** Several calls in one: each is made as if it had come alone. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type WholeNode, wholeNode } from './whole-node.ts'

const closing = new AsyncDisposableStack()
let node: WholeNode
before(async () => {
  node = closing.use(await wholeNode())
})
after(() => closing.disposeAsync())

type Result = { status: number; data?: unknown; message?: string; errors?: Record<string, string> }
const execute = async (calls: unknown) =>
  (await node.api('POST', `/nodes/${node.settings.node}/execute`, { commands: JSON.stringify(calls) })).data as Result[]

test('each call has its own answer, and one that fails does not keep the others', async () => {
  const results = await execute([
    { method: 'POST', path: 'pools', args: { poolid: 'dev', comment: 'made in a batch' } },
    { method: 'POST', path: '/pools', args: { poolid: 'dev' } },
    { method: 'GET', path: '/pools', args: { poolid: 'dev' } },
    { method: 'GET', path: '/pools/../access/users' },
    { method: 'POST', path: '/pools', args: { poolid: '!', comment: 7 } },
    { method: 'GET', path: '/nodes/elsewhere/status' },
  ])
  assert.deepEqual(
    results.map(({ status }) => status),
    [200, 500, 200, 501, 400, 500],
  )
  assert.match(results[1]?.message ?? '', /pool 'dev' already exists/)
  assert.deepEqual(
    ((results[2]?.data ?? []) as { poolid: string; comment: string }[]).map(({ poolid, comment }) => [poolid, comment]),
    [['dev', 'made in a batch']],
  )
  assert.deepEqual(Object.keys(results[4]?.errors ?? {}), ['poolid'])
})

test('a batch holds neither another batch nor a file', async () => {
  const at = `/nodes/${node.settings.node}`
  const args = { content: 'iso', filename: 'a.iso', tmpfilename: '/etc/shadow' }
  const results = await execute([
    { method: 'POST', path: `${at}/execute`, args: { commands: '[]' } },
    { method: 'POST', path: `${at}/execute//`, args: { commands: '[]' } },
    { method: 'POST', path: `${at}/storage/local/upload`, args },
  ])
  assert.ok(
    results.every(({ status }) => status !== 200),
    JSON.stringify(results),
  )
  assert.match(results[2]?.message ?? '', /takes an upload, which no other call can carry/)
})

test('what is no batch is refused as a whole', async () => {
  for (const wrong of [
    {},
    [1],
    [{ method: 'TRACE', path: '/version' }],
    [{ method: 'GET' }],
    [{ method: 'GET', path: '/', x: 1 }],
  ]) {
    await assert.rejects(execute(wrong), /Parameter verification failed/)
  }
  await assert.rejects(execute(Array(101).fill({ method: 'GET', path: '/version' })), /Parameter verification failed/)
  assert.deepEqual(await execute([]), [])
})
