// What a provider may say that must not let anybody in. A real one never says it, so this one is made here.
import assert from 'node:assert/strict'
import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, test } from 'node:test'
import { text } from 'node:stream/consumers'
import { MiB } from '#base/bytes.ts'
import { type Fault, isFault } from '#base/fault.ts'
import { type Attempt, type Claims, isSafeAddress, openProvider } from './openid.ts'

const own = generateKeyPairSync('rsa', { modulusLength: 2048 })
const foreign = generateKeyPairSync('rsa', { modulusLength: 2048 })
const attempt: Attempt = { redirectUrl: 'https://node.example:8006', state: 's', nonce: 'n', verifier: 'v'.repeat(43) }
const closing = new AsyncDisposableStack()
let issuer: string
/** How the provider behaves now. */
let says: {
  readonly metadata?: object
  readonly header?: object
  readonly claims?: Record<string, unknown>
  readonly key?: KeyObject
  readonly userinfo?: object
  readonly token?: (reply: ServerResponse) => void
}
let told: URLSearchParams

before(async () => {
  const server = createServer((request, reply) => void answer(request, reply)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  closing.defer(() => {
    server.closeAllConnections()
    server.close()
  })
  issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
after(() => closing.disposeAsync())

async function answer(request: IncomingMessage, reply: ServerResponse): Promise<void> {
  const json = (value: unknown) =>
    reply.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value))
  switch (request.url) {
    case '/.well-known/openid-configuration':
      return void json({
        issuer,
        authorization_endpoint: `${issuer}/authorize`,
        token_endpoint: `${issuer}/token`,
        jwks_uri: `${issuer}/keys`,
        userinfo_endpoint: `${issuer}/userinfo`,
        ...says.metadata,
      })
    case '/keys':
      return void json({ keys: [{ ...own.publicKey.export({ format: 'jwk' }), kid: 'k', use: 'sig', alg: 'RS256' }] })
    case '/userinfo':
      return void json(says.userinfo ?? { sub: 'ann', email: 'ann@example.org' })
    case '/token':
      told = new URLSearchParams(await text(request))
      if (says.token) return says.token(reply)
      return void json({ access_token: 'a', token_type: 'bearer', id_token: idToken() })
    default:
      return void reply.writeHead(302, { location: '/token' }).end()
  }
}

function idToken(): string {
  const now = Math.floor(Date.now() / 1000)
  const claims = { iss: issuer, aud: 'node', sub: 'ann', nonce: 'n', iat: now, exp: now + 60, ...says.claims }
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const signed = `${part({ alg: 'RS256', kid: 'k', ...says.header })}.${part(claims)}`
  return `${signed}.${sign('sha256', Buffer.from(signed), says.key ?? own.privateKey).toString('base64url')}`
}

async function loggedIn(behaviour: typeof says, audiences: readonly string[] = []): Promise<Claims> {
  says = behaviour
  const provider = await openProvider({ issuer, clientId: 'node', clientKey: 'key', trusted: [] })
  return provider.redeem(attempt, 'code', { withUserinfo: true, audiences })
}

async function refused(
  behaviour: typeof says,
  expected: RegExp,
  kind: Fault['kind'] = 'unauthenticated',
): Promise<void> {
  await assert.rejects(loggedIn(behaviour), (error) => {
    assert.ok(isFault(error, kind), String(error))
    assert.match(error.message, expected)
    return true
  })
}

test('a token that holds gives its claims and those the provider adds, for code, verifier and address', async () => {
  const { sub, email } = await loggedIn({})
  assert.deepEqual([sub, email], ['ann', 'ann@example.org'])
  const { code, code_verifier: verifier, redirect_uri: redirect } = Object.fromEntries(told)
  assert.deepEqual([code, verifier, redirect], ['code', attempt.verifier, attempt.redirectUrl])
  const provider = await openProvider({ issuer, clientId: 'node', clientKey: undefined, trusted: [] })
  const url = new URL(await provider.authorizationUrl(attempt, { scopes: ['openid'] }))
  const challenge = createHash('sha256').update(attempt.verifier).digest('base64url')
  assert.equal(url.searchParams.get('code_challenge'), challenge)
})

test('a token of somebody else, for somebody else, too old or of another attempt lets nobody in', async () => {
  await refused({ claims: { iss: 'http://127.0.0.1:1' } }, /unexpected JWT claim value.*iss/)
  await refused({ claims: { aud: 'another' } }, /unexpected JWT claim value.*aud/)
  await refused({ claims: { nonce: 'another' } }, /unexpected JWT claim value.*nonce/)
  await refused({ claims: { exp: 1000 } }, /JWT timestamp claim value failed/)
  await refused({ claims: { sub: undefined } }, /invalid response.*sub/)
  await refused({ key: foreign.privateKey }, /signature verification failed/)
  await refused({ header: { alg: 'none' } }, /./)
  await refused({ header: { kid: 'unknown' } }, /./)
  await refused({ userinfo: { sub: 'bob', email: 'bob@example.org' } }, /unexpected JSON attribute value.*sub/)
  const both = { claims: { aud: ['node', 'shop'], azp: 'node' } }
  await refused(both, /the token is for shop too/)
  assert.equal((await loggedIn(both, ['shop'])).sub, 'ann')
})

test('an answer that is none, too long or leads elsewhere lets nobody in', async () => {
  await refused({ token: (reply) => reply.writeHead(500).end('no') }, /does not confirm the log-in/)
  await refused({ token: (reply) => reply.writeHead(302, { location: `${issuer}/keys` }).end() }, /does not confirm/)
  const json = { 'content-type': 'application/json' }
  await refused({ token: (reply) => reply.writeHead(200, json).end('{"access_token":') }, /does not confirm/)
  await refused({ token: (reply) => reply.writeHead(200, json).end('{"access_token":"a","token_type":"bearer"}') }, /./)
  const long = Buffer.alloc(2 * MiB, 0x20)
  await refused({ token: (reply) => reply.writeHead(200, json).end(long) }, /its answer is too long/, 'unavailable')
  await refused({ token: (reply) => reply.destroy() }, /cannot be reached/, 'unavailable')
  const denied = JSON.stringify({ error: 'invalid_grant', error_description: 'spent\u0007\u00e9 already' })
  await refused({ token: (reply) => reply.writeHead(400, json).end(denied) }, /: invalid_grant: spent\?\? already$/)
  await refused(
    { metadata: { issuer: 'https://another.example' } },
    /does not match the expected issuer/,
    'unavailable',
  )
  await refused({ metadata: { token_endpoint: 'http://192.0.2.1/token' } }, /not asked without TLS/, 'unavailable')
})

test('only what nobody on the way can read is safe', () => {
  const safe = (address: string) => isSafeAddress(new URL(address))
  for (const address of [
    'https://a.example',
    'http://127.0.0.1:1',
    'http://[::1]:1',
    'http://localhost',
    'http://127.9.9.9',
  ])
    assert.ok(safe(address), address)
  for (const address of [
    'http://a.example',
    'http://10.0.0.1',
    'http://localhost.a.example',
    'ftp://127.0.0.1',
    'file:///x',
  ])
    assert.ok(!safe(address), address)
})
