/** The whole-API tests, held against a small API with one endpoint of each kind, and against broken ones. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { enumOf, integer, nothing, optional, string } from '#base/schema/schema.ts'
import { anyone, check, world } from '#rest/endpoint.ts'
import { httpsTransport, unixTransport } from '#rest/transport.ts'
import { callerOver } from './caller.ts'
import { demoEndpoints } from './demo-endpoints.ts'
import { csrfOf, demoNode, ticketOf } from './demo.ts'
import { fuzzFindings, unboundedParameters } from './fuzz.ts'
import { rightsFindings } from './rights.ts'
import { outside, sampleOf } from './samples.ts'

const known = { node: 'demo' }
const ticketHeaders = (user: string) => ({
  Cookie: `PVEAuthCookie=${ticketOf(user)}`,
  CSRFPreventionToken: csrfOf(user),
})

test('the demo API refuses strangers and the powerless, through the public port', async () => {
  await using node = await demoNode()
  using transport = httpsTransport({ url: node.url, certificate: node.certificate })
  const findings = await rightsFindings(demoEndpoints, {
    asNobody: callerOver(transport.send),
    asPowerless: callerOver(transport.send, ticketHeaders('powerless@pve')),
    known,
  })
  assert.deepEqual(findings, [])
  assert.doesNotMatch(node.log.lines.join('\n'), /"level":"error"/)
})

test('the demo API names every parameter that breaks its rule', async () => {
  await using node = await demoNode()
  using transport = unixTransport(node.apiSocket)
  const findings = await fuzzFindings(demoEndpoints, { asRoot: callerOver(transport.send), known })
  assert.deepEqual(findings, [])
  assert.doesNotMatch(node.log.lines.join('\n'), /"level":"error"/)
})

test('the same through the public port', async () => {
  await using node = await demoNode()
  using transport = httpsTransport({ url: node.url, certificate: node.certificate })
  const asRoot = callerOver(transport.send, ticketHeaders('root@pam'))
  assert.deepEqual(await fuzzFindings(demoEndpoints, { asRoot, known }), [])
})

test('every parameter of the demo API is bounded', () => {
  assert.deepEqual(unboundedParameters(demoEndpoints), [])
})

describe('the tests themselves find what is wrong', () => {
  const endpoint = (permission: typeof world, method: 'GET' | 'POST' = 'POST') => ({
    method,
    path: '/x/{id}',
    params: {
      id: string({ maxLength: 5 }),
      n: optional(integer({ minimum: 1, maximum: 9 })),
      kind: enumOf(['a', 'b']),
    },
    permission,
    returns: nothing,
  })
  const answering =
    (status: number, body: Readonly<Record<string, unknown>> = {}) =>
    async () => ({ status, body })
  const noTicket = answering(401, { message: 'No ticket\n', kind: 'unauthenticated' })
  const denied = answering(403, { message: 'Permission check failed\n', kind: 'denied' })
  const done = answering(200, { data: null })
  const bug = answering(500, { message: 'internal error, reference 0\n', kind: 'failed' })

  test('a door that is open, and one that is closed to all', async () => {
    const found = (permission: typeof world, asNobody: typeof done, asPowerless: typeof done) =>
      rightsFindings([endpoint(permission)], { asNobody, asPowerless, known: {} })
    const guarded = check('VM.Audit', '/')
    assert.deepEqual(await found(guarded, noTicket, denied), [])
    assert.match((await found(guarded, done, denied)).join(), /without a login instead of 401/)
    assert.match((await found(guarded, noTicket, done)).join(), /without rights instead of 403/)
    assert.match((await found(guarded, noTicket, bug)).join(), /instead of 403/)
    assert.match((await found(anyone, noTicket, done)).join(), /did what a user without rights asked/)
    assert.match((await found(anyone, noTicket, bug)).join(), /has a bug/)
    assert.match((await found(world, noTicket, denied)).join(), /open to the world and asks for a login/)
  })

  test('a check that is missing, and a bug behind it', async () => {
    for (const [asRoot, text] of [
      [done, /answers 200/],
      [bug, /has a bug/],
      [answering(400, { errors: { other: 'x' } }), /instead of 400 naming it/],
    ] as const) {
      const findings = await fuzzFindings([endpoint(world)], { asRoot, known: {} })
      // id too long; n no number, a fraction, below, above; kind another, missing; unknown.
      assert.equal(findings.length, 8, findings.join('\n'))
      assert.match(findings.join(), text)
    }
  })

  test('a parameter without bounds', () => {
    const open = { method: 'GET', path: '/x', params: { n: integer({ minimum: 1 }), s: string() } } as const
    assert.equal(unboundedParameters([open]).length, 2)
  })

  test('samples fit, values outside do not', () => {
    const pattern = string({ pattern: /[A-Z]{3}-\d+/, maxLength: 12 })
    assert.match(String(sampleOf(pattern, 'x')), /^[A-Z]{3}-\d+$/)
    assert.deepEqual(
      outside(pattern).map(({ why }) => why),
      ['longer than 12', 'another shape'],
    )
    assert.throws(() => sampleOf(string({ format: 'no-such' }), 'x'), /add one to the table/)
  })
})
