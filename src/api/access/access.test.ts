import assert from 'node:assert/strict'
import { test } from 'node:test'
import { userIdentity } from '#access/identity.ts'
import { rootInPerson, type SmallWorld, smallWorld } from '#access/small-world.ts'
import { silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { createDispatcher } from '#rest/dispatch.ts'
import type { Identity } from '#rest/endpoint.ts'
import type { NodeServices } from '#services.ts'
import type { Call } from '../call.ts'
import { accessEndpoints } from './access.ts'

const password = 'correct horse battery'

interface Answer {
  readonly status: number
  readonly reason: string
  readonly data: unknown
  readonly errors?: Record<string, string>
}

/** The branch served as the daemon serves it, without the network. */
function serve({ access, realms }: SmallWorld) {
  // Handlers of this branch reach for nothing else.
  const services = { access, realms } as NodeServices
  const dispatcher = createDispatcher<Call>({
    endpoints: accessEndpoints,
    judge: access,
    node: 'lab',
    log: silentLog,
    random: systemRandom,
    makeCall: ({ who = userIdentity('nobody@pve'), signal, remoteAddress, again }) => ({
      who,
      services,
      signal,
      remoteAddress,
      again,
      start: () => assert.fail('nothing in this branch is a task'),
      may: async () => assert.fail('this branch filters by itself'),
    }),
  })
  return async (who: Identity, method: string, path: string, params: Record<string, unknown> = {}): Promise<Answer> => {
    const isQuery = method === 'GET' || method === 'DELETE'
    const query = isQuery ? new URLSearchParams(Object.entries(params).map(([k, v]) => [k, String(v)])).toString() : ''
    const reply = await dispatcher.handle({
      method,
      path,
      query,
      format: 'json',
      authenticate: async () => who,
      body: async () => (isQuery ? {} : params),
      signal: new AbortController().signal,
      remoteAddress: '192.0.2.7',
    })
    return {
      status: reply.status,
      reason: reply.reason,
      ...(JSON.parse(reply.body) as Omit<Answer, 'status' | 'reason'>),
    }
  }
}

test('a session from nothing: user, role, right, token, and what each then may', async () => {
  await using world = await smallWorld()
  const ask = serve(world)
  const bob = userIdentity('bob@pve')
  const done = { status: 200, reason: 'OK', data: null }
  assert.deepEqual(await ask(rootInPerson, 'POST', '/access/users', { userid: 'bob@pve', password, expire: '0' }), done)
  assert.deepEqual(
    await ask(rootInPerson, 'POST', '/access/roles', { roleid: 'Op', privs: 'VM.Audit,VM.PowerMgmt' }),
    done,
  )
  assert.deepEqual(await ask(rootInPerson, 'PUT', '/access/acl', { path: '/vms', roles: 'Op', users: 'bob@pve' }), done)

  const made = await ask(bob, 'POST', '/access/users/bob@pve/token/ci', { privsep: '0' })
  const { value, ...shown } = made.data as { value: string }
  assert.deepEqual(shown, { 'full-tokenid': 'bob@pve!ci', info: { privsep: 0, expire: 0 } })
  const ci = await world.access.tokenIdentity(`bob@pve!ci=${value}`)
  const held = { '/vms': { 'VM.Audit': 1, 'VM.PowerMgmt': 1 } }
  assert.deepEqual((await ask(ci, 'GET', '/access/permissions')).data, held)
  assert.deepEqual((await ask(bob, 'GET', '/access/roles/Op')).data, { 'VM.Audit': 1, 'VM.PowerMgmt': 1 })

  const logged = await ask(bob, 'POST', '/access/ticket', { username: 'bob', realm: 'pve', password })
  const session = logged.data as { username: string; cap: { vms: unknown }; ticket: string }
  assert.equal(session.username, 'bob@pve')
  assert.deepEqual(session.cap.vms, held['/vms'])
  assert.equal((await world.access.ticketIdentity(session.ticket)).user, 'bob@pve')

  assert.deepEqual(
    await ask(rootInPerson, 'PUT', '/access/acl', { path: '/vms', roles: 'Op', users: 'bob@pve', delete: 1 }),
    done,
  )
  assert.deepEqual((await ask(ci, 'GET', '/access/permissions')).data, {})
  assert.deepEqual(await ask(rootInPerson, 'DELETE', '/access/users/bob@pve'), done)
  assert.equal((await ask(rootInPerson, 'GET', '/access/users/bob@pve')).reason, "no such user ('bob@pve')")
})

test('booleans leave as 1 and 0, and nobody hears of a hash', async () => {
  await using world = await smallWorld()
  const ask = serve(world)
  await world.access.createUser('bob@pve', { password, enable: false })
  await world.access.createToken('bob@pve', 'ci', { comment: 'builds' })
  const token = { expire: 0, privsep: 1, comment: 'builds' }
  assert.deepEqual((await ask(rootInPerson, 'GET', '/access/users/bob@pve')).data, {
    enable: 0,
    expire: 0,
    groups: [],
    tokens: { ci: token },
  })
  const users = (await ask(rootInPerson, 'GET', '/access/users', { full: 1, enabled: 0 })).data
  assert.deepEqual(users, [
    { userid: 'bob@pve', enable: 0, expire: 0, groups: '', 'realm-type': 'pve', tokens: [{ tokenid: 'ci', ...token }] },
  ])
  assert.deepEqual((await ask(rootInPerson, 'GET', '/access/users/bob@pve/token')).data, [{ tokenid: 'ci', ...token }])
  const roles = (await ask(rootInPerson, 'GET', '/access/roles')).data as { roleid: string }[]
  const auditor = roles.find(({ roleid }) => roleid === 'PVETemplateUser')
  assert.deepEqual(auditor, { roleid: 'PVETemplateUser', privs: 'VM.Audit,VM.Clone', special: 1 })
})

test('anybody may see the realms and knock at the login', async () => {
  await using world = await smallWorld()
  const ask = serve(world)
  const stranger = userIdentity('nobody@pve')
  assert.deepEqual(await ask(stranger, 'GET', '/access/ticket'), { status: 200, reason: 'OK', data: null })
  const realms = (await ask(stranger, 'GET', '/access/domains')).data as { realm: string; type: string }[]
  assert.deepEqual(
    realms.map(({ realm, type }) => [realm, type]),
    [
      ['pam', 'pam'],
      ['pve', 'pve'],
    ],
  )
  const refused = await ask(stranger, 'POST', '/access/ticket', { username: 'nobody@pve', password })
  assert.deepEqual([refused.status, refused.reason, refused.data], [401, 'authentication failure', null])
})

test('without rights there is no door, and a token is not its user', async () => {
  await using world = await smallWorld()
  const ask = serve(world)
  const { access } = world
  for (const userid of ['bob@pve', 'eve@pve']) await access.createUser(userid, { password })
  await access.createGroup('staff')
  const { value } = await access.createToken('bob@pve', 'full', { privsep: false })
  const full = await access.tokenIdentity(`bob@pve!full=${value}`)
  const eve = userIdentity('eve@pve')
  const closed: [Identity, string, string, Record<string, unknown>?][] = [
    [eve, 'POST', '/access/users', { userid: 'new@pve' }],
    [eve, 'GET', '/access/users/bob@pve'],
    [eve, 'PUT', '/access/users/bob@pve', { enable: 0 }],
    [eve, 'PUT', '/access/users/eve@pve', { groups: 'staff' }],
    [eve, 'DELETE', '/access/users/bob@pve'],
    [eve, 'GET', '/access/users/bob@pve/token'],
    [eve, 'GET', '/access/users/bob@pve/token/full'],
    [eve, 'POST', '/access/users/bob@pve/token/new'],
    [eve, 'PUT', '/access/users/bob@pve/token/full', { regenerate: 1 }],
    [eve, 'DELETE', '/access/users/bob@pve/token/full'],
    [eve, 'PUT', '/access/password', { userid: 'bob@pve', password: 'brand new password' }],
    [eve, 'PUT', '/access/acl', { path: '/', roles: 'Administrator', users: 'eve@pve' }],
    [eve, 'POST', '/access/roles', { roleid: 'Mine' }],
    [eve, 'PUT', '/access/roles/Mine', { privs: 'VM.Audit' }],
    [eve, 'DELETE', '/access/roles/Mine'],
    [eve, 'POST', '/access/groups', { groupid: 'mine' }],
    [eve, 'GET', '/access/groups/staff'],
    [eve, 'PUT', '/access/groups/staff', { comment: 'mine' }],
    [eve, 'DELETE', '/access/groups/staff'],
    [eve, 'GET', '/access/permissions', { userid: 'bob@pve' }],
    // A token makes no tokens of its user's and changes no password, with all the user's rights or without.
    [full, 'POST', '/access/users/bob@pve/token/another'],
    [full, 'PUT', '/access/password', { userid: 'bob@pve', password: 'brand new password' }],
  ]
  for (const [who, method, path, params] of closed) {
    const { status, reason } = await ask(who, method, path, params)
    assert.equal(status, 403, `${method} ${path}`)
    assert.match(reason, /^Permission check failed/)
  }
})

test('rights on one group reach the users of that group, and new users of it', async () => {
  await using world = await smallWorld()
  const ask = serve(world)
  const { access } = world
  for (const groupid of ['staff', 'board']) await access.createGroup(groupid)
  await access.createUser('lead@pve', { password })
  await access.createUser('bob@pve', { groups: ['staff'] })
  await access.createUser('chair@pve', { groups: ['board'] })
  const lead = userIdentity('lead@pve')
  for (const path of ['/access/groups/staff', '/access/realm/pve']) {
    await access.changeAcl(rootInPerson, {
      path,
      roles: ['PVEUserAdmin'],
      users: ['lead@pve'],
      propagate: true,
      isRemoval: false,
    })
  }
  const statusOf = async (...request: [string, string, Record<string, unknown>?]) =>
    (await ask(lead, ...request)).status
  assert.equal(await statusOf('PUT', '/access/users/bob@pve', { comment: 'night shift' }), 200)
  assert.equal(await statusOf('PUT', '/access/users/chair@pve', { comment: 'gone' }), 403)
  assert.equal(await statusOf('PUT', '/access/users/bob@pve', { groups: 'board' }), 403)
  assert.equal(await statusOf('POST', '/access/users', { userid: 'new@pve', groups: 'staff' }), 200)
  assert.equal(await statusOf('POST', '/access/users', { userid: 'new2@pve' }), 403)
  assert.equal(await statusOf('POST', '/access/users', { userid: 'new2@pve', groups: 'staff,board' }), 403)
  assert.equal(await statusOf('POST', '/access/users', { userid: 'new@pam', groups: 'staff' }), 403)
  assert.equal(await statusOf('DELETE', '/access/users/bob@pve'), 200)
  assert.equal(await statusOf('POST', '/access/users/root@pam/token/mine'), 403)
})

test('every wrong parameter is named with its rule', async () => {
  await using world = await smallWorld()
  const ask = serve(world)
  const wrong: [string, string, Record<string, unknown>, Record<string, RegExp>][] = [
    [
      'POST',
      '/access/users',
      { userid: 'bob', password: 'short', expire: -1 },
      { userid: /^invalid format/, password: /at least 8/, expire: /minimum value of 0/ },
    ],
    ['POST', '/access/users', { userid: 'bob@nowhere' }, { userid: /realm 'nowhere' does not exist/ }],
    ['POST', '/access/users', { userid: 'bob@pve', password: 'x'.repeat(65) }, { password: /may only be 64/ }],
    ['PUT', '/access/users/root@pam', { append: 1 }, { groups: /missing property required by 'append'/ }],
    ['POST', '/access/users/root@pam/token/9x', {}, { tokenid: /regex pattern/ }],
    [
      'PUT',
      '/access/acl',
      { path: '/vms/7', roles: 'PVEAdmin', users: 'root@pam' },
      { path: /invalid ACL path '\/vms\/7'/ },
    ],
    ['PUT', '/access/acl', { path: '/' }, { roles: /not optional/ }],
    ['POST', '/access/roles', { roleid: 'Mine', privs: 'VM.Monitor' }, { privs: /invalid privilege 'VM.Monitor'/ }],
    ['PUT', '/access/roles/Mine', { append: 1 }, { privs: /missing property required/ }],
    [
      'POST',
      '/access/ticket',
      { username: 'bob@pve', password, path: '/' },
      { privs: /missing property required by 'path'/ },
    ],
    ['POST', '/access/groups', { groupid: 'a b' }, { groupid: /invalid format/ }],
  ]
  for (const [method, path, params, expected] of wrong) {
    const { status, errors = {} } = await ask(rootInPerson, method, path, params)
    assert.equal(status, 400, `${method} ${path} ${JSON.stringify(params)}`)
    for (const [field, text] of Object.entries(expected)) assert.match(errors[field] ?? '', text)
  }
})

test('every parameter has a bound, and every path parameter a schema', () => {
  for (const { method, path, params } of accessEndpoints) {
    for (const [, name = ''] of path.matchAll(/\{(\w+)\}/g)) assert.ok(name in params, `${method} ${path}: ${name}`)
    for (const [name, schema] of Object.entries(params)) {
      const isBound =
        schema.type === 'boolean' ||
        schema.enum !== undefined ||
        (schema.type === 'string' && (schema.maxLength !== undefined || schema.pattern !== undefined)) ||
        (schema.type === 'integer' && schema.minimum !== undefined && schema.maximum !== undefined)
      assert.ok(isBound, `${method} ${path}: ${name} has no bound`)
    }
  }
})
