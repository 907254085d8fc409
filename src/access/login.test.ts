import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault, isFault } from '#base/fault.ts'
import type { Host } from '#host/host.ts'
import { accessLimits } from './limits.ts'
import { rootInPerson, type SmallWorld, smallWorld } from './small-world.ts'

const password = 'correct horse battery'
const address = '192.0.2.7'

async function worldWithBob(): Promise<SmallWorld> {
  const world = await smallWorld()
  await world.access.createUser('bob@pve', { password })
  return world
}

/** The refusal of a login, which is always the same. */
async function refused(attempt: Promise<unknown>): Promise<void> {
  await assert.rejects(attempt, (error) => {
    assert.ok(isFault(error, 'unauthenticated'))
    assert.equal(error.message, 'authentication failure')
    assert.equal(error.cause, undefined)
    return true
  })
}

test('a login gives a ticket, a CSRF token and what may be offered', async () => {
  await using world = await worldWithBob()
  const { access } = world
  await access.changeAcl(rootInPerson, {
    path: '/vms',
    roles: ['PVETemplateUser'],
    users: ['bob@pve'],
    propagate: true,
    isRemoval: false,
  })
  const reply = await access.login({ username: 'bob@pve', password, address })
  assert.equal(reply.username, 'bob@pve')
  assert.deepEqual(reply.cap?.vms, { 'VM.Audit': 1, 'VM.Clone': 1 })
  const who = await access.ticketIdentity(reply.ticket ?? '')
  assert.deepEqual(who, { user: 'bob@pve', authId: 'bob@pve' })
  assert.ok(access.csrfIsValid(who, reply.CSRFPreventionToken))
  assert.ok(!access.csrfIsValid(who, undefined))
  assert.ok(!access.csrfIsValid(rootInPerson, reply.CSRFPreventionToken))
})

test('the realm may stand apart from the name, and does not have to', async () => {
  await using world = await worldWithBob()
  const { access } = world
  assert.equal((await access.login({ username: 'bob', realm: 'pve', password, address })).username, 'bob@pve')
  assert.equal((await access.login({ username: 'bob@pve', realm: 'pve', password, address })).username, 'bob@pve')
  await refused(access.login({ username: 'bob', password, address }))
  await refused(access.login({ username: 'bob', realm: 'pam', password, address }))
})

test('whatever is wrong, the answer is the same text after the same three seconds', async () => {
  await using world = await worldWithBob()
  const { access, clock } = world
  await access.createUser('off@pve', { password, enable: false })
  await access.createUser('past@pve', { password, expire: Math.floor(clock.now() / 1000) - 1 })
  await access.createUser('empty@pve', {})
  const attempts = [
    { username: 'bob@pve', password: 'wrong' },
    { username: 'bob@pve', password: '' },
    { username: 'ghost@pve', password },
    { username: 'off@pve', password },
    { username: 'past@pve', password },
    { username: 'empty@pve', password: '' },
    { username: 'bob@nowhere', password },
    { username: 'bob', password },
    { username: '', password },
    { username: 'a\u0001b@pve', password },
    { username: 'bob@pve', password: 'x'.repeat(10_000) },
    { username: 'bob@pve', password: 'PVE:bob@pve:00000000::AAAA' },
  ]
  for (const attempt of attempts) {
    const before = clock.monotonic()
    await refused(access.login({ ...attempt, address }))
    assert.equal(clock.monotonic() - before, accessLimits.login.refusalMs, JSON.stringify(attempt))
  }
})

test('PAM is not asked about users who may not log in here: it would count against the system account', async () => {
  await using world = await smallWorld()
  await world.access.createUser('off@pam', { enable: false })
  await refused(world.access.login({ username: 'off@pam', password, address }))
  await refused(world.access.login({ username: 'daemon@pam', password, address }))
})

test('a wrong password appears neither in the log nor in the answer, and the log says why', async () => {
  await using world = await worldWithBob()
  await refused(world.access.login({ username: 'bob@pve', password: 'hunter2-hunter2', address }))
  // The password typed into the field of the name.
  await refused(world.access.login({ username: 'hunter2-hunter2', password: 'bob@pve', address }))
  const log = world.logged.join('\n')
  assert.doesNotMatch(log, /hunter2/)
  assert.match(log, /login refused.*bob@pve.*192\.0\.2\.7.*wrong password/)
  assert.match(log, /\(malformed\)/)
})

test('after many failures the right password is refused for a while, and then accepted', async () => {
  await using world = await worldWithBob()
  const { access, clock } = world
  const { perUser } = accessLimits.login
  const attempt = (given: string, from: number) =>
    access.login({ username: 'bob@pve', password: given, address: `10.0.0.${from}` })
  // Each refusal takes time, in which a part of an attempt comes back.
  for (let n = 0; n < perUser.burst + 2; n += 1) await refused(attempt('wrong', n))
  await refused(attempt(password, 99))
  clock.pass(perUser.everyMs)
  assert.equal((await attempt(password, 99)).username, 'bob@pve')
})

test('a valid ticket renews itself in the place of the password', async () => {
  await using world = await worldWithBob()
  const { access, clock } = world
  const first = await access.login({ username: 'bob@pve', password, address })
  clock.pass(3600_000)
  const second = await access.login({ username: 'bob@pve', password: first.ticket ?? '', address })
  clock.pass(3600_000)
  await assert.rejects(access.ticketIdentity(first.ticket ?? ''), { message: 'permission denied - invalid PVE ticket' })
  assert.equal((await access.ticketIdentity(second.ticket ?? '')).user, 'bob@pve')
  await refused(access.login({ username: 'bob@pve', password: first.ticket ?? '', address }))
})

test("root's ticket opens any account that may log in, and nobody else's does", async () => {
  // The system knows one password of root's.
  const knowsRoot: Host = {
    run: async (_, { input } = {}) => ({
      code: input === undefined || input === 'x\n' ? 0 : 1,
      stdout: '',
      stderr: '',
    }),
  }
  await using world = await smallWorld({ host: knowsRoot })
  const { access } = world
  for (const name of ['bob@pve', 'eve@pve']) await access.createUser(name, { password })
  await access.createUser('off@pve', { enable: false })
  const ofRoot = (await access.login({ username: 'root@pam', password: 'x', address })).ticket ?? ''
  assert.equal((await access.login({ username: 'bob@pve', password: ofRoot, address })).username, 'bob@pve')
  await refused(access.login({ username: 'off@pve', password: ofRoot, address }))
  const ofEve = (await access.login({ username: 'eve@pve', password, address })).ticket ?? ''
  await refused(access.login({ username: 'bob@pve', password: ofEve, address }))
  await refused(access.login({ username: 'root@pam', password: ofEve, address }))
})

test('a login may prove rights on a path instead of opening a session', async () => {
  await using world = await worldWithBob()
  const { access } = world
  await access.changeAcl(rootInPerson, {
    path: '/vms/100',
    roles: ['PVETemplateUser'],
    users: ['bob@pve'],
    propagate: true,
    isRemoval: false,
  })
  const asking = { username: 'bob@pve', password, address }
  assert.deepEqual(await access.login({ ...asking, path: '/vms/100', privs: ['VM.Audit'] }), { username: 'bob@pve' })
  await refused(access.login({ ...asking, path: '/vms/100', privs: ['VM.Audit', 'VM.Console'] }))
  await refused(access.login({ ...asking, path: '/vms/101', privs: ['VM.Audit'] }))
  await refused(access.login({ ...asking, path: '/vms/100', privs: [] }))
})

test('a ticket ends with its user: deleted, disabled or expired', async () => {
  await using world = await worldWithBob()
  const { access, clock } = world
  const invalid = { message: 'permission denied - invalid PVE ticket' }
  const { ticket = '' } = await access.login({ username: 'bob@pve', password, address })
  await access.updateUser('bob@pve', { enable: false })
  await assert.rejects(access.ticketIdentity(ticket), invalid)
  await access.updateUser('bob@pve', { enable: true, expire: Math.floor(clock.now() / 1000) + 60 })
  assert.equal((await access.ticketIdentity(ticket)).user, 'bob@pve')
  clock.pass(60_000)
  await assert.rejects(access.ticketIdentity(ticket), invalid)
  await access.deleteUser('bob@pve')
  await assert.rejects(access.ticketIdentity(ticket), invalid)
})

test('another process with the same keys accepts the ticket', async () => {
  await using world = await worldWithBob()
  const { ticket = '' } = await world.access.login({ username: 'bob@pve', password, address })
  assert.equal((await world.another().ticketIdentity(ticket)).user, 'bob@pve')
})

test('a password that cannot be checked at all is not a wrong password', async () => {
  const broken: Host = {
    run: async ([program]) => {
      throw new Fault('missing', `the program '${program}' is not installed`)
    },
  }
  await using world = await smallWorld({ host: broken })
  await assert.rejects(
    world.access.login({ username: 'root@pam', password: 'hunter2-hunter2', address }),
    (error) => isFault(error, 'unavailable') || isFault(error, 'missing'),
  )
  assert.match(world.logged.join('\n'), /could not be checked/)
  assert.doesNotMatch(world.logged.join('\n'), /hunter2/)
})
