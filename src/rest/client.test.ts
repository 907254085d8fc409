/** The typed client, over a real socket and without one. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { array, boolean, integer, object, optional, type Properties, type Schema, string } from '#base/schema/schema.ts'
import { demoNode, ticketOf, csrfOf } from '../../test/contract/demo.ts'
import { apiClient, fillPath, queryOf, type Transport, type TransportReply } from './client.ts'
import { httpsTransport, unixTransport } from './transport.ts'

/** As the real factory does: keeps method and path as literals. */
const shape = <const M extends string, const Path extends string, const P extends Properties, R extends Schema>(
  method: M,
  path: Path,
  params: P,
  returns: R,
) => ({ method, path, params, returns })

const whoami = shape('GET', '/whoami', {}, object({ authid: string(), remote: string() }))
const echo = shape(
  'PUT',
  '/echo/{id}',
  { id: string(), text: optional(string()), flag: optional(boolean()), list: optional(array(string())) },
  object({ id: string(), text: optional(string()), flag: optional(boolean()), list: optional(array(string())) }),
)
const tasks = shape('GET', '/tasks', { start: optional(integer()) }, array(object({ n: integer() })))
const remove = shape(
  'DELETE',
  '/storage/{storage}/content/{volume*}',
  { storage: string(), volume: string() },
  string(),
)
type Demo = typeof whoami | typeof echo | typeof tasks | typeof remove

describe('over a real socket', () => {
  test('calls are typed, values are those of the wire', async () => {
    await using node = await demoNode()
    using transport = unixTransport(node.apiSocket)
    const api = apiClient<Demo>(transport.send)

    const me = await api.call('GET /whoami')
    assert.equal(me.authid satisfies string, 'root@pam')
    const back = await api.call('PUT /echo/{id}', { id: 'abc', text: 'ä&=;+%', flag: true, list: ['x', 'y'] })
    assert.deepEqual(back, { id: 'abc', text: 'ä&=;+%', flag: 1, list: ['x', 'y'] })
    assert.equal(back.flag satisfies 0 | 1 | undefined, 1)
    assert.equal(
      await api.call('DELETE /storage/{storage}/content/{volume*}', { storage: 'local', volume: 'local:iso/a b' }),
      'local:iso/a b',
    )
    assert.deepEqual(await api.reply('GET /tasks', { start: 3 }), { data: [{ n: 3 }], total: 1234, changes: 'a\nb' })
    // @ts-expect-error -- a call nobody declared does not compile
    await assert.rejects(api.call('GET /nothing', {}), (error) => isFault(error, 'unimplemented'))
    // @ts-expect-error -- nor does one without what it needs
    await assert.rejects(api.call('PUT /echo/{id}'), (error) => isFault(error, 'invalid'))
  })

  test('an error comes back as the fault it was', async () => {
    await using node = await demoNode()
    using transport = unixTransport(node.apiSocket)
    const { raw } = apiClient(transport.send)
    await assert.rejects(raw('GET', '/broken', { how: 'conflict' }), (error) => {
      assert.ok(isFault(error, 'conflict'))
      assert.deepEqual([error.message, error.remedy], ['VM 100 already running', 'Stop it first.'])
      return true
    })
    await assert.rejects(raw('GET', '/large', { size: 'x' }), (error) => {
      assert.ok(isFault(error, 'invalid'))
      assert.deepEqual(error.fields, { size: "type check ('integer') failed - got 'x'" })
      return true
    })
  })

  test('over TLS by ticket and by token', async () => {
    await using node = await demoNode()
    using transport = httpsTransport({ url: node.url, certificate: node.certificate })
    const by = (credentials: Parameters<typeof apiClient>[1]) => apiClient<Demo>(transport.send, credentials)
    const user = 'root@pam'
    const ticket = by({ credentials: () => ({ kind: 'ticket', ticket: ticketOf(user), csrf: csrfOf(user) }) })
    assert.equal((await ticket.call('GET /whoami')).authid, user)
    assert.deepEqual(await ticket.call('PUT /echo/{id}', { id: 'a' }), { id: 'a' })
    const token = by({ credentials: () => ({ kind: 'token', token: 'root@pam!ci=letmein' }) })
    assert.equal((await token.call('GET /whoami')).authid, 'root@pam!ci')
    await assert.rejects(
      by({}).call('GET /whoami'),
      (error) => isFault(error, 'unauthenticated') && error.message === 'No ticket',
    )
  })

  test('nobody there is unavailable, with what to do', async () => {
    using transport = unixTransport('/nonexistent/api.sock')
    await assert.rejects(
      apiClient(transport.send).raw('GET', '/version'),
      (error) => isFault(error, 'unavailable') && error.remedy !== undefined,
    )
  })

  test('a certificate nobody vouched for is refused', async () => {
    await using node = await demoNode()
    using transport = httpsTransport({ url: node.url })
    await assert.rejects(apiClient(transport.send).raw('GET', '/version'), (error) => isFault(error, 'unavailable'))
  })
})

describe('replies of other servers', () => {
  const replying =
    (reply: Partial<TransportReply>): Transport =>
    async () => ({
      status: 500,
      reason: 'Error',
      headers: {},
      body: '',
      ...reply,
    })
  const failing = async (reply: Partial<TransportReply>) => {
    try {
      await apiClient(replying(reply)).raw('GET', '/x')
    } catch (error) {
      assert.ok(isFault(error))
      return [error.kind, error.message]
    }
    return assert.fail('it did not fail')
  }

  test('without a kind the status decides, without a body the reason speaks', async () => {
    assert.deepEqual(await failing({ status: 403, reason: 'Permission check failed' }), [
      'denied',
      'Permission check failed',
    ])
    assert.deepEqual(await failing({ status: 596, reason: 'Broken pipe' }), ['unavailable', 'Broken pipe'])
    assert.deepEqual(await failing({ body: '{"data":null,"message":"a\\nb\\n"}' }), ['failed', 'a\nb'])
    assert.deepEqual(await failing({ body: '{"data":null,"message":"x","kind":"nonsense"}' }), ['failed', 'x'])
  })

  test('a success that is not of this API is none', async () => {
    for (const body of ['', '<html>', '[]', '{}']) assert.equal((await failing({ status: 200, body }))[0], 'failed')
  })
})

test('paths are filled and queries written so that nothing changes meaning', () => {
  assert.deepEqual(fillPath('/a/{x}/{y*}', { x: 'p/q', y: 'r/s t', z: 1 }), {
    path: '/a/p%2Fq/r/s%20t',
    others: { z: 1 },
  })
  assert.throws(
    () => fillPath('/a/{x}', {}),
    (error) => isFault(error, 'invalid'),
  )
  assert.equal(queryOf({ a: true, b: [1, 2], c: undefined, d: null, e: 'ä b' }), 'a=1&b=1&b=2&e=%C3%A4+b')
})
