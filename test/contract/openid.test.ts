/** Log-ins through a real OpenID provider, in which a test does what a person in a browser does. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { smallWorld } from '#access/small-world.ts'
import { readOtpauth, totpCode } from '#access/tfa/totp.ts'
import { compiled } from '../compiled.ts'
import { clientId, type OpenIdProvider, openidProvider, redirectUrl } from '../fixtures/openid-provider.ts'
import { callerOver } from './caller.ts'
import type { ContractReply } from './samples.ts'
import { type WholeNode, wholeNode } from './whole-node.ts'

const closing = new AsyncDisposableStack()
let provider: OpenIdProvider
let node: WholeNode

before(async () => {
  provider = closing.use(await openidProvider())
  node = closing.use(await wholeNode({ caFile: provider.authority.file }))
})
after(() => closing.disposeAsync())

async function realm(name: string, options: Record<string, unknown> = {}): Promise<void> {
  const facts = { 'issuer-url': provider.issuer, 'client-id': clientId, 'client-key': provider.clientKey }
  await node.api('POST', '/access/domains', { realm: name, type: 'openid', ...facts, ...options })
}

/** Nobody, at the front's socket. */
const post = (path: string, params: Record<string, unknown>, headers: Record<string, string> = {}) =>
  callerOver(node.asFront, headers)({ method: 'POST', path, params, isUpload: false })

async function begin(name: string): Promise<URL> {
  const { status, body } = await post('/access/openid/auth-url', { realm: name, 'redirect-url': redirectUrl })
  assert.equal(status, 200, JSON.stringify(body))
  return new URL(String(body.data))
}

interface Back {
  readonly state: string
  readonly code: string
}

/** What the browser brings back from the provider. */
async function visited(name: string, subject: string): Promise<Back> {
  const back = await provider.visit((await begin(name)).href, subject)
  assert.equal(back.origin, redirectUrl)
  return { state: back.searchParams.get('state') ?? '', code: back.searchParams.get('code') ?? '' }
}

const end = (back: Back, to = redirectUrl) => post('/access/openid/login', { ...back, 'redirect-url': to })
const logIn = async (name: string, subject: string) => end(await visited(name, subject))

function refused({ status, body }: ContractReply, reason: RegExp): void {
  assert.equal(status, 401, JSON.stringify(body))
  assert.match(String(body.message), reason)
}

interface Session {
  readonly username: string
  readonly ticket: string
  readonly CSRFPreventionToken: string
  readonly cap: Record<string, unknown>
  readonly NeedTFA?: number
}

function session({ status, body }: ContractReply): Session {
  assert.equal(status, 200, JSON.stringify(body))
  return body.data as Session
}

const get = async (path: string) => (await node.api('GET', path)).data as Record<string, unknown>

test('who logs in at the provider gets a ticket that opens the API, and is created with what the provider says', async () => {
  provider.people['7f3a'] = {
    preferred_username: 'ann',
    given_name: 'Ann',
    family_name: 'Example',
    email: 'ann@example.org',
    teams: ['staff', 'ops', 'no group: /', 7],
  }
  await realm('office', {
    'username-claim': 'username',
    scopes: 'email,profile teams',
    autocreate: 1,
    'groups-claim': 'teams',
    'groups-autocreate': 1,
  })
  const { username, ticket, CSRFPreventionToken, cap } = session(await logIn('office', '7f3a'))
  assert.equal(username, 'ann@office')
  assert.ok(cap)
  const asAnn = callerOver(node.asFront, { Cookie: `PVEAuthCookie=${encodeURIComponent(ticket)}`, CSRFPreventionToken })
  const seen = await asAnn({ method: 'GET', path: '/access/permissions', params: {}, isUpload: false })
  assert.equal(seen.status, 200)
  const own = { userid: username, comment: 'it is I' }
  const changed = await asAnn({ method: 'PUT', path: `/access/users/${username}`, params: own, isUpload: false })
  assert.equal(changed.status, 403)
  const { firstname, lastname, email, groups, enable } = await get('/access/users/ann@office')
  assert.deepEqual(
    { firstname, lastname, email, groups, enable },
    {
      firstname: 'Ann',
      lastname: 'Example',
      email: 'ann@example.org',
      groups: ['ops-office', 'staff-office'],
      enable: 1,
    },
  )
})

test('groups given by hand stay, unless the claim decides alone', async () => {
  await node.api('POST', '/access/groups', { groupid: 'guests' })
  await node.api('PUT', '/access/users/ann@office', { groups: 'guests', append: 1 })
  const groups = async () => (await get('/access/users/ann@office')).groups
  provider.people['7f3a'] = { preferred_username: 'ann', teams: ['night'] }
  session(await logIn('office', '7f3a'))
  assert.deepEqual(await groups(), ['guests', 'night-office', 'ops-office', 'staff-office'])

  await node.api('PUT', '/access/domains/office', { 'groups-overwrite': 1, 'groups-autocreate': 0 })
  provider.people['7f3a'] = { preferred_username: 'ann', teams: ['ops', 'unheard-of'] }
  session(await logIn('office', '7f3a'))
  assert.deepEqual(await groups(), ['ops-office'])
  provider.people['7f3a'] = { preferred_username: 'ann' }
  session(await logIn('office', '7f3a'))
  assert.deepEqual(await groups(), ['ops-office'])
})

test('the provider is asked for what the realm says, and hears no secret from the browser', async () => {
  await realm('strict', { prompt: 'login', 'acr-values': 'urn:example:strong', scopes: 'email' })
  const url = await begin('strict')
  const { state, nonce, code_challenge: challenge, ...asked } = Object.fromEntries(url.searchParams)
  assert.equal(url.origin, provider.issuer)
  assert.deepEqual(asked, {
    response_type: 'code',
    client_id: clientId,
    redirect_uri: redirectUrl,
    scope: 'openid email',
    code_challenge_method: 'S256',
    prompt: 'login',
    acr_values: 'urn:example:strong',
  })
  // A state is pasted into command lines, too: it may not begin with a dash.
  for (const secret of [state, nonce]) assert.match(secret ?? '', /^[\da-f]{64}$/)
  assert.match(challenge ?? '', /^[\w-]{43}$/)
  assert.notEqual((await begin('strict')).searchParams.get('state'), state)
  const shown = JSON.stringify([await get('/access/domains/strict'), node.bugs()])
  assert.ok(!shown.includes(provider.clientKey))
})

test('a log-in ends once, where it began, with its own code', async () => {
  refused(await end({ state: 'made-up', code: 'x' }), /no log-in with this state is under way/)
  const first = await visited('office', '7f3a')
  session(await end(first))
  refused(await end(first), /answered already/)
  const second = await visited('office', '7f3a')
  refused(await end({ ...second, code: first.code }), /does not confirm the log-in: invalid_grant/)
  refused(await end(second), /answered already/)
  // A code that was meant for somebody else's attempt.
  const [third, fourth] = [await visited('office', '7f3a'), await visited('office', '7f3a')]
  refused(await end({ state: third.state, code: fourth.code }), /does not confirm the log-in: invalid_grant/)
  const fifth = await visited('office', '7f3a')
  refused(await end(fifth, 'https://elsewhere.example.org'), /began with another redirect-url/)
})

test('nobody becomes a user whom the node does not know, has locked out or cannot name', async () => {
  provider.people.bob = { preferred_username: 'bob', email: 'bob@example.org' }
  await realm('closed', { scopes: '' })
  refused(await logIn('closed', 'bob'), /no such user \('bob@closed'\)/)
  await node.api('POST', '/access/users', { userid: 'bob@closed' })
  assert.equal(session(await logIn('closed', 'bob')).username, 'bob@closed')
  const change = (facts: object) => node.api('PUT', '/access/users/bob@closed', { ...facts })
  await change({ enable: 0 })
  refused(await logIn('closed', 'bob'), /user 'bob@closed' is disabled/)
  await change({ enable: 1, expire: 1000 })
  refused(await logIn('closed', 'bob'), /access expired/)
  const attempt = await post('/access/ticket', { username: 'bob@closed', password: 'anything' })
  refused(attempt, /cannot check passwords of the realm 'closed' \(openid\)/)

  provider.people.odd = { preferred_username: 'a/b c', email: 'odd@example.org', email_verified: false }
  await realm('named', { 'username-claim': 'username', autocreate: 1 })
  refused(await logIn('named', 'odd'), /'preferred_username' of the OpenID provider cannot be the name of a user/)
  await realm('mail', { 'username-claim': 'email', autocreate: 1 })
  refused(await logIn('mail', 'odd'), /has not verified the mail address/)
  assert.equal(session(await logIn('mail', 'bob')).username, 'bob@example.org@mail')
  await node.api('PUT', '/access/domains/mail', { 'query-userinfo': 0 })
  refused(await logIn('mail', 'bob'), /does not say 'email'/)
  await node.api('DELETE', '/access/domains/mail')
  const { status } = await post('/access/openid/auth-url', { realm: 'mail', 'redirect-url': redirectUrl })
  assert.equal(status, 500)
})

test('a provider that is another than it says, knows another secret, or is not there, lets nobody in', async () => {
  const begun = async (name: string, to = redirectUrl) =>
    post('/access/openid/auth-url', { realm: name, 'redirect-url': to })
  await realm('other', { 'issuer-url': provider.issuer.replace('127.0.0.1', 'localhost') })
  assert.match(String((await begun('other')).body.message), /cannot be used: .*does not match the expected issuer/)
  await realm('gone', { 'issuer-url': 'https://127.0.0.1:1' })
  assert.match(String((await begun('gone')).body.message), /cannot be reached: .*ECONNREFUSED/)
  await realm('forgetful', { 'client-key': 'another secret', autocreate: 1 })
  refused(await logIn('forgetful', 'bob'), /does not accept client-id and client-key of the realm/)
  await node.api('PUT', '/access/domains/forgetful', { 'client-key': provider.clientKey })
  assert.equal(session(await logIn('forgetful', 'bob')).username, 'bob@forgetful')

  assert.match(String((await begun('pve')).body.message), /has no OpenID provider/)
  for (const bad of ['x', 'ftp://a.example', 'http://a.example', 'https://u:p@a.example', 'https://a.example/#x']) {
    const { status, body } = await begun('office', bad)
    assert.deepEqual([status, Object.keys(body.errors ?? {})], [400, ['redirect-url']], bad)
  }
  for (const issuer of [
    'http://a.example',
    'x',
    'https://u:p@a.example',
    'ftp://a.example',
    'http://127.0.0.1.a.example',
  ]) {
    await assert.rejects(realm('unsafe', { 'issuer-url': issuer }), /Parameter verification failed/, issuer)
  }
})

test('a provider on this very machine may do without TLS', async () => {
  using plain = await openidProvider({ isPlain: true })
  plain.people.eve = { email: 'eve@example.org' }
  await realm('here', { 'issuer-url': plain.issuer, 'client-key': plain.clientKey, autocreate: 1 })
  const back = await plain.visit((await begin('here')).href, 'eve')
  const [state = '', code = ''] = ['state', 'code'].map((name) => back.searchParams.get(name) ?? '')
  assert.equal(session(await end({ state, code })).username, 'eve@here')
})

test('a factor the user has on the node is asked for beside the provider', async () => {
  const uri = 'otpauth://totp/Hakobune:x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&algorithm=SHA256&digits=8&period=60'
  const read = readOtpauth(uri)
  assert.ok(read.ok)
  const code = (away: number) => totpCode(read.value, Math.floor(Date.now() / 60_000) + away)
  await node.api('POST', '/access/tfa/ann@office', { type: 'totp', totp: uri, value: code(0) })
  const { ticket: half, NeedTFA } = session(await logIn('office', '7f3a'))
  assert.equal(NeedTFA, 1)
  const withHalf = callerOver(node.asFront, { Cookie: `PVEAuthCookie=${encodeURIComponent(half)}` })
  assert.equal(
    (await withHalf({ method: 'GET', path: '/access/permissions', params: {}, isUpload: false })).status,
    401,
  )
  const second = { username: 'ann@office', password: `totp:${code(1)}`, 'tfa-challenge': half }
  assert.equal(session(await post('/access/ticket', second)).username, 'ann@office')
})

test('an attempt that took too long is over; another process knows nothing of it', async () => {
  await using world = await smallWorld({ settings: { caFile: provider.authority.file } })
  const facts = { 'issuer-url': provider.issuer, 'client-id': clientId, 'client-key': provider.clientKey }
  await world.realms.create('office', 'openid', { ...facts, autocreate: true })
  const address = '192.0.2.1'
  const back = async () => {
    const url = await provider.visit(await world.access.openId.begin('office', { redirectUrl, address }), 'bob')
    const [state = '', code = ''] = ['state', 'code'].map((name) => url.searchParams.get(name) ?? '')
    return { state, code, redirectUrl, address }
  }
  const quick = await back()
  await assert.rejects(world.another().openIdLogin(quick), { message: /no log-in with this state/ })
  world.clock.pass(599_000)
  assert.equal((await world.access.openIdLogin(quick)).username, 'bob@office')
  const slow = await back()
  world.clock.pass(601_000)
  await assert.rejects(world.access.openIdLogin(slow), { kind: 'unauthenticated', message: /took too long/ })
  const told = world.logged.join('\n')
  for (const secret of [slow.state, slow.code, quick.code, provider.clientKey]) assert.ok(!told.includes(secret))
})

test('whoever begins very many pushes out their own first', async () => {
  await using world = await smallWorld({ settings: { caFile: provider.authority.file } })
  const facts = { 'issuer-url': provider.issuer, 'client-id': clientId, 'client-key': provider.clientKey }
  await world.realms.create('office', 'openid', { ...facts, autocreate: true })
  const begun = async (address: string) => world.access.openId.begin('office', { redirectUrl, address })
  const mine = await provider.visit(await begun('192.0.2.1'), 'bob')
  const theirs = await provider.visit(await begun('192.0.2.2'), 'bob')
  for (let count = 0; count < 256; count += 1) await begun('192.0.2.2')
  const end = (url: URL, address: string) => {
    const [state = '', code = ''] = ['state', 'code'].map((name) => url.searchParams.get(name) ?? '')
    return world.access.openIdLogin({ state, code, redirectUrl, address })
  }
  await assert.rejects(end(theirs, '192.0.2.2'), /no log-in with this state/)
  assert.equal((await end(mine, '192.0.2.1')).username, 'bob@office')
})

test('the command line says where to log in, and takes what came back', async () => {
  const program = join(import.meta.dirname, '../../src/cli/main.ts')
  const env = { ...compiled, PATH: process.env.PATH, HAKO_RUN_DIR: node.settings.runDir, LANG: 'C' }
  const hako = async (input: string, ...words: string[]) => {
    const args = ['--disable-warning=ExperimentalWarning', program, ...words]
    const running = promisify(execFile)(process.execPath, args, { env })
    running.child.stdin?.end(input)
    return (await running).stdout
  }
  const address = await hako('', 'realm', 'login-url', 'forgetful', redirectUrl)
  assert.ok(address.startsWith(`${provider.issuer}/auth?`), address)
  const back = await provider.visit(address.trim(), 'bob')
  const [state = '', code = ''] = ['state', 'code'].map((name) => back.searchParams.get(name) ?? '')
  const shown = await hako(code, 'realm', 'login', redirectUrl, state, '-o', 'json')
  assert.equal((JSON.parse(shown) as { username: string }).username, 'bob@forgetful')
})
