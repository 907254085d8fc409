import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { bob, bobsPassword, give, invalidField, rootInPerson, worldOf } from './small-world.ts'

const password = bobsPassword

test('root is there from the beginning, may do everything, and cannot be deleted', async () => {
  await using world = await worldOf()
  const { access } = world
  assert.deepEqual(
    (await access.users(rootInPerson, {})).map(({ userid }) => userid),
    ['root@pam'],
  )
  assert.ok(access.isRoot(rootInPerson))
  assert.ok((await access.privilegesOn(rootInPerson, '/vms/100')).get('VM.PowerMgmt'))
  await assert.rejects(access.deleteUser('root@pam'), /user 'root@pam' cannot be deleted/)
})

test('texts that clients match on are kept to the letter', async () => {
  await using world = await worldOf('bob@pve')
  const { access } = world
  await access.createRole('Mine', ['VM.Audit'])
  await access.createGroup('staff')
  const said: [() => Promise<unknown>, string][] = [
    [() => access.createUser('bob@pve', {}), "user 'bob@pve' already exists"],
    [() => access.user('ghost@pve'), "no such user ('ghost@pve')"],
    [() => access.updateUser('ghost@pve', {}), "no such user ('ghost@pve')"],
    [() => access.deleteUser('ghost@pve'), "no such user ('ghost@pve')"],
    [() => access.tokens('ghost@pve'), "no such user ('ghost@pve')"],
    [() => access.createToken('ghost@pve', 'ci', {}), "no such user ('ghost@pve')"],
    [() => access.token('bob@pve', 'ci'), "no such token 'ci' for user 'bob@pve'"],
    [() => access.createUser('eve@pve', { groups: ['x'] }), "group 'x' does not exist"],
    [() => access.role('x'), "role 'x' does not exist"],
    [() => access.updateRole('x', []), "role 'x' does not exist"],
    [() => access.deleteRole('x'), "role 'x' does not exist"],
    [() => access.createRole('Mine', []), "role 'Mine' already exists"],
    [() => access.createRole('PVEAdmin', []), "role 'PVEAdmin' already exists"],
    [() => access.group('x'), "group 'x' does not exist"],
    [() => access.deleteGroup('x'), "group 'x' does not exist"],
    [() => access.createGroup('staff'), "group 'staff' already exists"],
    [() => give(world, '/', 'x', { users: ['bob@pve'] }), "role 'x' does not exist"],
    [() => give(world, '/', 'Mine', { users: ['ghost@pve'] }), "no such user ('ghost@pve')"],
    [() => give(world, '/', 'Mine', { groups: ['x'] }), "group 'x' does not exist"],
    [() => give(world, '/', 'Mine', { tokens: ['bob@pve!x'] }), "no such token 'bob@pve!x'"],
    [() => access.ticketIdentity('PVE:bob@pve:00000000::AAAA'), 'permission denied - invalid PVE ticket'],
    [() => access.tokenIdentity('bob@pve!ci=00000000-0000-4000-8000-000000000000'), 'invalid token value!'],
  ]
  for (const [act, text] of said) await assert.rejects(act, { message: text })
})

test('a user of an unknown realm is refused, naming the realms there are', async () => {
  await using world = await worldOf()
  await assert.rejects(
    world.access.createUser('bob@ldap', {}),
    invalidField('userid', /realm 'ldap' does not exist; there are pam, pve/),
  )
})

test('what is said about a user is kept, and an update leaves the rest', async () => {
  await using world = await worldOf()
  const { access } = world
  await access.createGroup('staff')
  await access.createGroup('night')
  await access.createUser('bob@pve', {
    groups: ['staff', 'staff'],
    comment: 'Bob',
    email: 'bob@example.org',
    expire: 0,
  })
  await access.updateUser('bob@pve', { enable: false, firstname: 'Bob' })
  const expected = {
    enable: false,
    expire: 0,
    groups: ['staff'],
    comment: 'Bob',
    email: 'bob@example.org',
    firstname: 'Bob',
  }
  assert.deepEqual(await access.user('bob@pve'), expected)
  await access.updateUser('bob@pve', { groups: ['night'] }, { append: true })
  assert.deepEqual((await access.user('bob@pve')).groups, ['night', 'staff'])
  await access.updateUser('bob@pve', { groups: [] })
  assert.deepEqual((await access.user('bob@pve')).groups, [])
})

test('everybody sees himself, and others as far as the rights on groups reach', async () => {
  await using world = await worldOf('bob@pve', 'eve@pve')
  const { access } = world
  const seen = async () => (await access.users(bob, {})).map(({ userid }) => userid)
  assert.deepEqual(await seen(), ['bob@pve'])
  await access.createGroup('staff')
  await access.updateUser('eve@pve', { groups: ['staff'] })
  await give(world, '/access/groups/staff', 'PVEAuditor', { users: ['bob@pve'] })
  assert.deepEqual(await seen(), ['bob@pve', 'eve@pve'])
  await give(world, '/access/groups', 'PVEAuditor', { users: ['bob@pve'] })
  assert.deepEqual(await seen(), ['bob@pve', 'eve@pve', 'root@pam'])
  const [, eve] = await access.users(bob, { full: true })
  assert.deepEqual(eve, {
    userid: 'eve@pve',
    enable: true,
    expire: 0,
    'realm-type': 'pve',
    groups: 'staff',
    tokens: [],
  })
  await access.updateUser('eve@pve', { enable: false })
  assert.deepEqual(
    (await access.users(bob, { enabled: false })).map(({ userid }) => userid),
    ['eve@pve'],
  )
})

test('a deleted user leaves nothing a later user of that name could inherit', async () => {
  await using world = await worldOf('bob@pve', 'bob@pve!x@pve')
  const { access, store } = world
  const { value } = await access.createToken('bob@pve', 'ci', {})
  const other = await access.createToken('bob@pve!x@pve', 'ci', {})
  await give(world, '/', 'Administrator', { users: ['bob@pve'], tokens: ['bob@pve!ci'] })
  await access.deleteUser('bob@pve')
  const left = (await store.list('access/')).map(({ key }) => key)
  assert.deepEqual(
    left.filter((key) => key.includes('bob@pve') && !key.includes('x@pve')),
    [],
  )
  await access.createUser('bob@pve', {})
  assert.equal((await access.privilegesOn(bob, '/')).size, 0)
  await assert.rejects(access.tokenIdentity(`bob@pve!ci=${value}`), { message: 'invalid token value!' })
  await assert.rejects(access.login({ username: 'bob@pve', password, address: '' }), /authentication failure/)
  assert.equal((await access.tokenIdentity(`${other['full-tokenid']}=${other.value}`)).user, 'bob@pve!x@pve')
})

test('a user changes the own password by confirming the old one', async () => {
  await using world = await worldOf('bob@pve')
  const { access } = world
  const change = { userid: 'bob@pve', password: 'brand new password', address: '' }
  await assert.rejects(access.changePassword(bob, change), invalidField('confirmation-password', /required/))
  await assert.rejects(
    access.changePassword(bob, { ...change, confirmation: 'wrong' }),
    invalidField('confirmation-password', /authentication failure/),
  )
  await access.changePassword(bob, { ...change, confirmation: password })
  await assert.rejects(access.login({ username: 'bob@pve', password, address: '' }), /authentication failure/)
  assert.equal(
    (await access.login({ username: 'bob@pve', password: change.password, address: '' })).username,
    'bob@pve',
  )
})

test('root changes any password of the realm pve, and none of the system', async () => {
  await using world = await worldOf('bob@pve')
  const { access } = world
  await access.changePassword(rootInPerson, { userid: 'bob@pve', password: 'brand new password', address: '' })
  await access.login({ username: 'bob@pve', password: 'brand new password', address: '' })
  await assert.rejects(
    access.changePassword(rootInPerson, { userid: 'root@pam', password: 'brand new password', address: '' }),
    invalidField('password', /can't set password on auth type 'pam'/),
  )
  await assert.rejects(access.createUser('eve@pam', { password }), invalidField('password', /auth type 'pam'/))
})

test("nobody but root touches a system user's password, whatever rights are held", async () => {
  await using world = await worldOf('bob@pve')
  await give(world, '/', 'Administrator', { users: ['bob@pve'] })
  const change = { userid: 'root@pam', password: 'brand new password', confirmation: password, address: '' }
  await assert.rejects(world.access.changePassword(bob, change), (error) => isFault(error, 'denied'))
})

test('guessing the confirmation counts as guessing the password', async () => {
  await using world = await worldOf('bob@pve')
  const { access } = world
  const change = { userid: 'bob@pve', password: 'brand new password', address: '10.0.0.1' }
  for (let n = 0; n < 10; n += 1) {
    await assert.rejects(access.changePassword(bob, { ...change, confirmation: 'wrong' }))
  }
  await assert.rejects(
    access.changePassword(bob, { ...change, confirmation: password }),
    invalidField('confirmation-password', /authentication failure/),
  )
})
