/** The way of a request: who is stopped where, and what runs behind it. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Fault } from '#base/fault.ts'
import { demoDispatcher, type DemoLog } from '../../test/contract/demo.ts'
import type { ApiRequest } from './dispatch.ts'
import type { Identity } from './endpoint.ts'

const identities = {
  root: { user: 'root@pam', authId: 'root@pam' },
  ci: { user: 'root@pam', token: 'root@pam!ci', authId: 'root@pam!ci' },
  ann: { user: 'ann@pve', authId: 'ann@pve' },
  bob: { user: 'bob@pve', authId: 'bob@pve' },
} satisfies Record<string, Identity>
type Who = keyof typeof identities | 'nobody'

interface Sent extends Partial<Omit<ApiRequest, 'body'>> {
  readonly who?: Who
  readonly body?: Readonly<Record<string, unknown>>
}

interface Got {
  readonly status: number
  readonly reason: string
  readonly data: unknown
  readonly errors?: Record<string, string>
  readonly body: Record<string, unknown>
  /** Stages of the edge that were asked for. */
  readonly asked: readonly string[]
  readonly log: DemoLog
}

async function call(method: string, path: string, { who = 'root', body = {}, ...more }: Sent = {}): Promise<Got> {
  const log: DemoLog = { lines: [] }
  const asked: string[] = []
  const reply = await demoDispatcher(log).handle({
    method,
    path,
    query: '',
    format: 'json',
    signal: new AbortController().signal,
    remoteAddress: '192.0.2.1',
    async authenticate() {
      asked.push('session')
      if (who === 'nobody') throw new Fault('unauthenticated', 'No ticket')
      return identities[who]
    },
    async body() {
      asked.push('body')
      return body
    },
    ...more,
  })
  const parsed = JSON.parse(reply.body) as Record<string, unknown> & { data: unknown; errors?: Record<string, string> }
  return { ...parsed, status: reply.status, reason: reply.reason, body: parsed, asked, log }
}

describe('the stages, in their order', () => {
  test('a stranger is stopped before anything is read or revealed', async () => {
    for (const path of ['/version', '/no/such/path']) {
      const got = await call('POST', path, { who: 'nobody' })
      assert.deepEqual([got.status, got.reason, got.asked], [401, 'No ticket', ['session']])
    }
  })

  test('what is open to the world asks nobody who he is', async () => {
    const got = await call('GET', '/access/domains', { who: 'nobody' })
    assert.deepEqual([got.status, got.asked], [200, ['body']])
    assert.deepEqual(got.data, [{ realm: 'pam' }, { realm: 'pve' }])
  })

  test('an unknown path or method is 501 with the text clients match', async () => {
    const got = await call('GET', '/nodes//x/')
    assert.deepEqual([got.status, got.reason], [501, "Method 'GET /nodes//x/' not implemented"])
    assert.equal((await call('PUT', '/version')).status, 501)
  })

  test('rights come before the other parameters', async () => {
    const got = await call('GET', '/nodes/demo/qemu/101/status/current', { who: 'ann', query: 'nonsense=1' })
    assert.deepEqual([got.status, got.reason], [403, 'Permission check failed (/vms/101, VM.Audit)'])
  })

  test('every wrong parameter is named', async () => {
    const got = await call('POST', '/nodes/demo/qemu', {
      body: { vmid: '5', memory: 'x', bogus: 1, net0: 'virtio,virtio' },
    })
    assert.equal(got.status, 400)
    assert.deepEqual(Object.keys(got.errors ?? {}).toSorted(), ['bogus', 'memory', 'net0', 'vmid'])
  })

  test('a right that depends on a parameter is judged after the check', async () => {
    const body = { vmid: 100, pool: 'dev', storage: 'fast' }
    const got = await call('POST', '/nodes/demo/qemu', { who: 'ann', body })
    assert.deepEqual(
      [got.status, got.reason],
      [403, 'Permission check failed (/storage/fast, Datastore.AllocateSpace)'],
    )
    const { storage: _, ...without } = body
    assert.equal((await call('POST', '/nodes/demo/qemu', { who: 'ann', body: without })).status, 200)
  })

  test('the handler gets checked values and its reply is encoded', async () => {
    const body = { text: 5, count: '3', flag: '0', list: 'one', id: 'abc1' }
    const got = await call('PUT', '/echo/abc1', { body })
    assert.deepEqual(got.data, { id: 'abc1', text: '5', count: 3, flag: 0, list: ['one'] })
  })
})

describe('rights cannot be walked around by spelling', () => {
  test('a number is judged as it will be used', async () => {
    // bob sees every guest but 100.
    assert.equal((await call('GET', '/nodes/demo/qemu/101/status/current', { who: 'bob' })).status, 200)
    for (const text of ['100', '0100', '+100', '00100']) {
      assert.equal((await call('GET', `/nodes/demo/qemu/${text}/status/current`, { who: 'bob' })).status, 403, text)
    }
  })

  test('what rights cannot be judged over is a wrong parameter, not a denial', async () => {
    const got = await call('POST', '/nodes/demo/qemu', { who: 'bob', body: { memory: 1 } })
    assert.equal(got.status, 400)
    assert.deepEqual(Object.keys(got.errors ?? {}).toSorted(), ['memory', 'vmid'])
  })

  test('localhost is this node, also for its rights', async () => {
    const got = await call('POST', '/nodes/localhost/qemu', { body: { vmid: 100 } })
    assert.match(String(got.data), /^UPID:demo:/)
  })
})

test('another node does not exist on a single host', async () => {
  const got = await call('GET', '/nodes/other/qemu/100/status/current')
  assert.deepEqual([got.status, got.reason], [500, "node 'other' does not exist"])
})

test('a call for another node goes there with rights judged here', async () => {
  const { createDispatcher } = await import('./dispatch.ts')
  const { demoEndpoints } = await import('../../test/contract/demo-endpoints.ts')
  const { demoJudge } = await import('../../test/contract/demo.ts')
  const sentTo: string[] = []
  const dispatcher = createDispatcher({
    endpoints: demoEndpoints,
    judge: demoJudge,
    makeCall: (facts) => facts,
    node: 'demo',
    log: (await import('#base/log.ts')).silentLog,
    random: (await import('#base/random.ts')).systemRandom,
    forward: async (node) => {
      sentTo.push(node)
      return { status: 200, reason: 'OK', contentType: 'application/json;charset=UTF-8', body: '{"data":null}' }
    },
  })
  const request = (who: Identity): ApiRequest => ({
    method: 'GET',
    path: '/nodes/other/qemu/101/status/current',
    query: '',
    format: 'json',
    signal: new AbortController().signal,
    remoteAddress: '',
    authenticate: async () => who,
    body: async () => ({}),
  })
  assert.equal((await dispatcher.handle(request(identities.ann))).status, 403)
  assert.equal((await dispatcher.handle(request(identities.bob))).status, 200)
  assert.deepEqual(sentTo, ['other'])
})

test('a token is refused where a person is wanted', async () => {
  const got = await call('POST', '/nodes/demo/secret', { who: 'ci' })
  assert.equal(got.status, 403)
  assert.match(got.reason, /^Permission check failed \(not available with an API token/)
  assert.equal((await call('POST', '/nodes/demo/secret')).status, 200)
})

test('a bug is a 500 with a reference that is in the log, and nothing else', async () => {
  const got = await call('GET', '/broken', { query: 'how=bug' })
  assert.equal(got.status, 500)
  const reference = /^internal error, reference ([0-9a-f]{8})$/.exec(got.reason)?.[1]
  assert.ok(reference)
  assert.doesNotMatch(JSON.stringify(got.body), /hunter2|TypeError/)
  assert.ok(got.log.lines.some((line) => line.includes(reference) && line.includes('undefined is not a function')))
})

test('a reply its schema does not describe is a bug too', async () => {
  assert.match((await call('GET', '/broken', { query: 'how=badreply' })).reason, /^internal error, reference/)
})

test('a fault keeps its text, its further lines and its remedy', async () => {
  const lines = await call('GET', '/broken', { query: 'how=multiline' })
  assert.equal(lines.reason, 'erste Zeile ? ?schön?')
  assert.equal(lines.body.message, 'erste Zeile – „schön“\r\nX-Injected: 1\nthird\n')
  const conflict = await call('GET', '/broken', { query: 'how=conflict' })
  assert.deepEqual([conflict.body.kind, conflict.body.remedy], ['conflict', 'Stop it first.'])
})

test('a rest parameter keeps its slashes', async () => {
  const got = await call('DELETE', '/storage/local/content/local:iso%2Fa/b.iso')
  assert.equal(got.data, 'local:iso/a/b.iso')
})

test('extjs wraps what happened behind the login, but not the login itself', async () => {
  const denied = await call('GET', '/nodes/demo/qemu/101/status/current', { who: 'ann', format: 'extjs' })
  assert.deepEqual([denied.status, denied.body.success, denied.body.status], [200, 0, 403])
  assert.equal((await call('GET', '/version', { who: 'nobody', format: 'extjs' })).status, 401)
})

test('what stands beside the data is passed on', async () => {
  const got = await call('GET', '/tasks', { query: 'start=7' })
  assert.deepEqual(got.body, { data: [{ n: 7 }], total: 1234, changes: 'a\nb' })
})
