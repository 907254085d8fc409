import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { checkProperties } from '#base/schema/check.ts'
import { Download, Reply } from '#rest/endpoint.ts'
import type { TaskService } from '#tasks/service.ts'
import { taskPlace } from '../../../test/fixtures/tasks/place.ts'
import { taskEndpoints } from './tasks.ts'

const of = (method: string, path: string) => {
  const found = taskEndpoints.find((endpoint) => endpoint.method === method && endpoint.path === path)
  assert.ok(found, `${method} ${path}`)
  return found
}

test('the paths are those of PVE, each once', () => {
  for (const [method, path] of [
    ['GET', '/nodes/{node}/tasks'],
    ['GET', '/nodes/{node}/tasks/{upid}'],
    ['DELETE', '/nodes/{node}/tasks/{upid}'],
    ['GET', '/nodes/{node}/tasks/{upid}/status'],
    ['GET', '/nodes/{node}/tasks/{upid}/log'],
  ] as const)
    of(method, path)
  assert.equal(taskEndpoints.length, 5)
})

test('a filter by outcome takes a list of the four outcomes and nothing else', () => {
  const { params } = of('GET', '/nodes/{node}/tasks')
  const isGood = (statusfilter: string) => checkProperties(params, { node: 'n', statusfilter }).ok
  for (const good of ['ok', 'ok,error', 'warning unknown', 'ok; error', ',ok', '']) assert.ok(isGood(good), good)
  for (const bad of ['fine', 'ok,fine', 'okerror', 'OK']) assert.ok(!isGood(bad), bad)
})

/** Calls a handler as somebody who holds these privileges on the node. */
function callAs(tasks: TaskService, authId: string, ...privileges: string[]) {
  const held = (path: string, asked: readonly string[]) =>
    path === '/nodes/testnode' && asked.every((privilege) => privileges.includes(privilege))
  const call = {
    who: { user: authId.split('!')[0], authId },
    services: { tasks },
    may: async (path: string, ...asked: string[]) => held(path, asked),
  }
  return async (method: string, path: string, params: object): Promise<unknown> => {
    const handle: (params: never, call: never) => unknown = of(method, `/nodes/{node}/tasks${path}`).handle
    return handle({ node: 'testnode', ...params } as never, call as never)
  }
}

const isDenied = (privilege: string) => (error: unknown) =>
  isFault(error, 'denied') && error.message === `Permission check failed (/nodes/testnode, ${privilege})`

test("one's own tasks are seen and stopped by anybody, those of others with the right to", async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const params = { root: place.root, name: 'a' }
  const upid = await tasks.start({ operation: 'hold', params, user: 'joe@pve!ci' })
  const [joe, token, otherToken, ann, auditor, operator] = [
    callAs(tasks, 'joe@pve'),
    callAs(tasks, 'joe@pve!ci'),
    callAs(tasks, 'joe@pve!web'),
    callAs(tasks, 'ann@pve'),
    callAs(tasks, 'ann@pve', 'Sys.Audit'),
    callAs(tasks, 'ann@pve', 'Sys.Modify'),
  ]
  for (const [call, isSeen] of [
    [joe, 1],
    [token, 1],
    [otherToken, 0],
    [ann, 0],
    [auditor, 1],
    [operator, 0],
  ] as const) {
    const list = await call('GET', '', { source: 'all' })
    assert.ok(list instanceof Reply && Array.isArray(list.data))
    assert.deepEqual([list.data.length, list.beside.total], [isSeen, isSeen])
    for (const path of ['/{upid}', '/{upid}/status', '/{upid}/log']) {
      if (isSeen) await call('GET', path, { upid })
      else await assert.rejects(call('GET', path, { upid }), isDenied('Sys.Audit'))
    }
  }
  for (const call of [ann, auditor, otherToken])
    await assert.rejects(call('DELETE', '/{upid}', { upid }), isDenied('Sys.Modify'))
  assert.equal(await operator('DELETE', '/{upid}', { upid }), null)
  assert.match((await tasks.wait(upid, { timeoutMs: 60_000 })).exitstatus ?? '', /^interrupted/)
})

test('a log is a page of lines, or the whole file', async () => {
  await using place = await taskPlace()
  const tasks = place.service()
  const upid = await tasks.start({ operation: 'mkalbum', params: { root: place.root, name: 'a' }, user: 'joe@pve' })
  await tasks.wait(upid, { timeoutMs: 60_000 })
  const joe = callAs(tasks, 'joe@pve')
  const page = await joe('GET', '/{upid}/log', { upid, start: 2, limit: 1 })
  assert.ok(page instanceof Reply)
  assert.deepEqual([page.data, page.beside.total], [[{ n: 3, t: 'wrote three' }], 4])
  const file = await joe('GET', '/{upid}/log', { upid, download: true })
  assert.ok(file instanceof Download)
  assert.match(file.fileName, /^task-mkalbum-\d{4}-\d\d-\d\dT\d{6}\.000Z\.log$/)
  assert.equal(file.text, 'wrote one\nwrote two\nwrote three\nTASK OK\n')
  const both = joe('GET', '/{upid}/log', { upid, download: true, limit: 5 })
  await assert.rejects(both, (error) => isFault(error, 'invalid') && error.fields?.limit !== undefined)
})

test('an unknown task is a wrong parameter, also for who may see nothing', async () => {
  await using place = await taskPlace()
  const upid = 'UPID:testnode:00000001:00000001:00000001:hold:a:root@pam:'
  const ann = callAs(place.service(), 'ann@pve')
  const isUnknown = (error: unknown) => isFault(error, 'invalid') && error.fields?.upid === 'no such task'
  await assert.rejects(ann('GET', '/{upid}/status', { upid }), isUnknown)
})
