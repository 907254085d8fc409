/** Realms against a real directory: Debian's slapd. */
import assert from 'node:assert/strict'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { userIdentity } from '#access/identity.ts'
import type { RealmValues } from '#access/realm-options.ts'
import type { SyncWish } from '#access/realm-sync.ts'
import { give, rootInPerson, type SmallWorld, smallWorld } from '#access/small-world.ts'
import { isFault } from '#base/fault.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { gone, group, people, person, slapd, type TestDirectory } from '../../../test/fixtures/slapd.ts'
import { syncRealm, testRealmSync } from './sync-realm.ts'

let directory: TestDirectory
let world: SmallWorld
let office: RealmValues
const closing = new AsyncDisposableStack()
const never = new AbortController().signal

before(async () => {
  directory = closing.use(await slapd())
  office = {
    server1: '127.0.0.1',
    port: directory.port,
    base_dn: 'dc=example,dc=org',
    bind_dn: directory.bindDn,
    password: directory.bindPassword,
    user_attr: 'uid',
    sync_attributes: 'email=mail,firstname=givenName,lastname=sn',
  }
  const ann = person('ann', { mail: 'ann@example.org', givenName: 'Änn', sn: 'Ångström' })
  await directory.change(
    [ann, person('bob'), person('wrong name'), group('staff', 'ann', 'bob'), group('two words', 'ann')].join('\n'),
  )
})
after(() => closing.disposeAsync())
beforeEach(async () => {
  world = await smallWorld()
  await world.realms.create('office', 'ldap', office)
})
afterEach(() => world[Symbol.asyncDispose]())

const sync = (wish: SyncWish, isDry = false) => world.realms.sync('office', { wish, isDry, signal: never })
const users = async () =>
  (await world.access.users(rootInPerson, { full: true })).filter(({ userid }) => userid.endsWith('@office'))
const names = async () => (await users()).map(({ userid }) => userid)
const groups = async () =>
  (await world.access.groups(rootInPerson)).map(({ groupid, users: members }) => [groupid, members])

test('users and groups of the directory become users and groups here', async () => {
  const { lines, warnings } = await sync({ scope: 'both' })
  assert.deepEqual(await users(), [
    {
      userid: 'ann@office',
      enable: true,
      expire: 0,
      firstname: 'Änn',
      lastname: 'Ångström',
      email: 'ann@example.org',
      'realm-type': 'ldap',
      groups: 'staff-office',
      tokens: [],
    },
    {
      userid: 'bob@office',
      enable: true,
      expire: 0,
      lastname: 'bob',
      'realm-type': 'ldap',
      groups: 'staff-office',
      tokens: [],
    },
  ])
  assert.deepEqual(await groups(), [['staff-office', 'ann@office,bob@office']])
  assert.ok(lines.includes("user 'ann@office': new") && lines.includes("group 'staff-office': new"))
  assert.deepEqual(warnings, [
    '"wrong name" cannot be the name of a user here',
    '"two words" cannot be the name of a group here',
  ])
  // The second time there is nothing left to do.
  assert.deepEqual((await sync({ scope: 'both' })).lines, [])
})

test('a dry run says the same and does nothing', async () => {
  const said = await sync({ scope: 'both' }, true)
  assert.deepEqual(await names(), [])
  assert.deepEqual(said.lines, (await sync({ scope: 'both' })).lines)
})

test('only users, only groups, and new users who may not log in yet', async () => {
  await sync({ scope: 'groups' })
  assert.deepEqual([await names(), await groups()], [[], [['staff-office', '']]])
  await sync({ scope: 'users', 'enable-new': false })
  assert.deepEqual(
    (await users()).map(({ enable, groups: of }) => [enable, of]),
    [
      [false, ''],
      [false, ''],
    ],
  )
  await assert.rejects(
    sync({}),
    (error) => isFault(error, 'invalid') && /sync-defaults/.test(error.fields?.scope ?? ''),
  )
  await world.realms.update('office', { set: { 'sync-defaults-options': 'scope=both' }, remove: [] })
  await sync({})
  assert.deepEqual((await groups())[0], ['staff-office', 'ann@office,bob@office'])
})

test('what people wrote by hand stays, unless properties are to be those of the directory', async () => {
  await sync({ scope: 'users' })
  await world.access.createGroup('night')
  await world.access.updateUser('bob@office', { comment: 'by hand', enable: false, groups: ['night'], email: 'b@b' })
  await sync({ scope: 'both' })
  const bob = async () => (await users()).find(({ userid }) => userid === 'bob@office')
  assert.deepEqual(
    [(await bob())?.comment, (await bob())?.groups, (await bob())?.enable],
    ['by hand', 'night,staff-office', false],
  )
  await sync({ scope: 'both', 'remove-vanished': 'properties' })
  assert.deepEqual([(await bob())?.comment, (await bob())?.email, (await bob())?.enable], [undefined, undefined, false])
})

test('who vanished stays, loses permissions, or goes, as it is asked for', async () => {
  const leaver = person('leaver')
  await directory.change(`${leaver}\n${group('leavers', 'leaver')}`)
  await sync({ scope: 'both' })
  await world.access.createUser('leaver@pve', {})
  await world.access.createToken('leaver@office', 'ci', {})
  await give(world, '/vms', 'PVEVMUser', {
    users: ['leaver@office', 'leaver@pve'],
    tokens: ['leaver@office!ci'],
    groups: ['leavers-office'],
  })
  await directory.change(`${gone(`uid=leaver,${people}`)}\n${gone('cn=leavers,ou=groups,dc=example,dc=org')}`)
  const given = async () => (await world.access.acl(rootInPerson)).map(({ ugid }) => ugid)

  await sync({ scope: 'both' })
  assert.ok((await names()).includes('leaver@office'))
  assert.equal((await given()).length, 4)
  await sync({ scope: 'both', 'remove-vanished': 'acl' })
  assert.ok((await names()).includes('leaver@office'))
  assert.deepEqual(await given(), ['leaver@pve'])
  await sync({ scope: 'both', 'remove-vanished': 'entry' })
  assert.deepEqual(
    [await names(), await groups()],
    [['ann@office', 'bob@office'], [['staff-office', 'ann@office,bob@office']]],
  )
  await assert.rejects(world.access.token('leaver@office', 'ci'), /no such user/)
  assert.ok((await world.access.user('leaver@pve')).enable)
})

test('a filter that fits nobody removes nobody', async () => {
  await sync({ scope: 'both' })
  await world.realms.update('office', { set: { filter: '(uid=nobody)' }, remove: [] })
  await assert.rejects(sync({ scope: 'users', 'remove-vanished': 'entry' }), { message: /names no user at all, and 2/ })
  assert.equal((await names()).length, 2)
  await world.realms.update('office', { set: { filter: 'uid=bob' }, remove: [] })
  await sync({ scope: 'users', 'remove-vanished': 'entry' })
  assert.deepEqual(await names(), ['bob@office'])
})

test('more users than the server gives at once are all there', async () => {
  const crowd = Array.from({ length: 700 }, (_, n) => person(`crowd${n}`))
  await directory.change(crowd.join('\n'))
  await sync({ scope: 'users' })
  assert.equal((await names()).length, 702)
  await directory.change(crowd.map((_, n) => gone(`uid=crowd${n},${people}`)).join('\n'))
})

test('over TLS, and only to a server somebody trusted signed for', async () => {
  const { authority, tlsPort } = directory
  for (const tls of [{ mode: 'ldaps', port: tlsPort }, { mode: 'ldap+starttls' }]) {
    const wanted = { ...tls, verify: true, 'check-connection': true }
    const attempt = world.realms.update('office', { set: wanted, remove: [] })
    await assert.rejects(attempt, { message: /cannot be reached: .*(certificate|issuer)/ }, tls.mode)
    await world.realms.update('office', { set: { ...wanted, capath: authority }, remove: [] })
    await sync({ scope: 'users' })
    assert.equal((await names()).length, 2)
    await world.realms.update('office', { set: { port: directory.port }, remove: ['verify', 'mode', 'capath'] })
  }
})

test('a connection that is to be checked first is, and nothing is kept of a wrong one', async () => {
  const { realms } = world
  const checked = { ...office, 'check-connection': true }
  const nobody = await import('../../../test/own-names.ts').then(({ freePort }) => freePort())
  const wrongs: [RealmValues, RegExp][] = [
    [{ password: 'wrong' }, /refuses the log-in of 'cn=reader/],
    [{ port: nobody }, /cannot be reached/],
    [{ base_dn: 'dc=nowhere' }, /does not answer below 'dc=nowhere'/],
  ]
  for (const [wrong, text] of wrongs) {
    await assert.rejects(realms.create('second', 'ldap', { ...checked, ...wrong }), { message: text })
  }
  await assert.rejects(realms.get('second'), /does not exist/)
  await realms.create('second', 'ldap', checked)
  await assert.rejects(
    realms.update('second', { set: { password: 'x', 'check-connection': true }, remove: [] }),
    /refuses/,
  )
  assert.equal(await realms.password('second'), office.password)
  await assert.rejects(realms.sync('pve', { wish: { scope: 'both' }, isDry: false, signal: never }), /no directory/)
})

test('when the first server is away the second one is asked', async () => {
  await world.realms.update('office', { set: { server1: '127.0.0.2', server2: '127.0.0.1' }, remove: [] })
  await sync({ scope: 'users' })
  assert.equal((await names()).length, 2)
})

const place = async () => {
  const own = await smallWorld()
  await own.realms.create('office', 'ldap', office)
  return {
    params: { realm: 'office', scope: 'both' },
    deps: { realms: own.realms },
    look: async () => [await own.access.users(rootInPerson, {}), await own.access.groups(userIdentity('root@pam'))],
    [Symbol.asyncDispose]: () => own[Symbol.asyncDispose](),
  }
}
everyStepFails(syncRealm, place, { isFinal: true })
everyStepFails(testRealmSync, place, { leavesNothing: true })
