import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { give, invalidField, rootInPerson, worldOf } from './small-world.ts'

test('a token is shown once, kept as a hash, and proves who calls', async () => {
  await using world = await worldOf('bob@pve')
  const { access, store } = world
  const made = await access.createToken('bob@pve', 'ci', { comment: 'builds' })
  assert.match(made.value, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
  assert.equal(made['full-tokenid'], 'bob@pve!ci')
  assert.deepEqual(made.info, { privsep: true, expire: 0, comment: 'builds' })
  assert.ok(!JSON.stringify(await store.list('')).includes(made.value))
  assert.deepEqual(await access.token('bob@pve', 'ci'), made.info)
  assert.deepEqual(await access.tokens('bob@pve'), [{ tokenid: 'ci', ...made.info }])
  const identity = { user: 'bob@pve', token: 'bob@pve!ci', authId: 'bob@pve!ci' }
  assert.deepEqual(await access.tokenIdentity(`bob@pve!ci=${made.value}`), identity)
  assert.deepEqual(await access.tokenIdentity(`PVEAPIToken=bob@pve!ci=${made.value}`), identity)
  assert.deepEqual(await access.tokenIdentity(`PVEAPIToken bob@pve!ci=${made.value}`), identity)
  assert.ok(!access.isRoot(await access.tokenIdentity(`bob@pve!ci=${made.value}`)))
})

test('no other secret, no other name and no other user goes with a token', async () => {
  await using world = await worldOf('bob@pve', 'eve@pve')
  const { access } = world
  const { value } = await access.createToken('bob@pve', 'ci', {})
  const other = '11111111-2222-4333-8444-555555555555'
  const empty = '00000000-0000-4000-8000-000000000000'
  for (const text of [
    `bob@pve!ci=${other}`,
    `bob@pve!ci=${empty}`,
    `bob@pve!ci=${value.toUpperCase()}x`,
    'bob@pve!ci=',
    `bob@pve!cd=${value}`,
    `eve@pve!ci=${value}`,
    `bob@pve=${value}`,
    value,
    '',
  ]) {
    await assert.rejects(access.tokenIdentity(text), (error) => {
      assert.ok(isFault(error, 'unauthenticated'), text)
      assert.equal(error.message, 'invalid token value!')
      return true
    })
  }
})

test('a token ends at its time, and with its user', async () => {
  await using world = await worldOf('bob@pve')
  const { access, clock } = world
  const soon = Math.floor(clock.now() / 1000) + 60
  const { value } = await access.createToken('bob@pve', 'ci', { expire: soon })
  await access.tokenIdentity(`bob@pve!ci=${value}`)
  clock.pass(60_000)
  await assert.rejects(access.tokenIdentity(`bob@pve!ci=${value}`), /token 'ci' access expired/)
  await access.updateToken('bob@pve', 'ci', { drop: ['expire'] })
  await access.tokenIdentity(`bob@pve!ci=${value}`)
  await access.updateUser('bob@pve', { expire: soon })
  await assert.rejects(access.tokenIdentity(`bob@pve!ci=${value}`), /user 'bob@pve' access expired/)
  await access.updateUser('bob@pve', { expire: 0, enable: false })
  await assert.rejects(access.tokenIdentity(`bob@pve!ci=${value}`), /user 'bob@pve' is disabled/)
})

test('a new secret ends the old one; other changes keep it', async () => {
  await using world = await worldOf('bob@pve')
  const { access } = world
  const { value } = await access.createToken('bob@pve', 'ci', { comment: 'builds' })
  assert.deepEqual(await access.updateToken('bob@pve', 'ci', { privsep: false }), {
    privsep: false,
    expire: 0,
    comment: 'builds',
  })
  await access.tokenIdentity(`bob@pve!ci=${value}`)
  const renewed = await access.updateToken('bob@pve', 'ci', { regenerate: true, drop: ['comment'] })
  assert.equal(renewed['full-tokenid'], 'bob@pve!ci')
  assert.equal(renewed.comment, undefined)
  await assert.rejects(access.tokenIdentity(`bob@pve!ci=${value}`), /invalid token value!/)
  await access.tokenIdentity(`bob@pve!ci=${renewed.value}`)
  await assert.rejects(access.updateToken('bob@pve', 'ci', { drop: ['privsep'] }), invalidField('delete', /privsep/))
})

test('a token of a name that is taken is refused in the words clients know', async () => {
  await using world = await worldOf('bob@pve')
  await world.access.createToken('bob@pve', 'ci', {})
  await assert.rejects(world.access.createToken('bob@pve', 'ci', {}), invalidField('tokenid', /already exists/))
})

test('a deleted token takes its rights along', async () => {
  await using world = await worldOf('bob@pve')
  const { access } = world
  await access.createToken('bob@pve', 'ci', {})
  await give(world, '/vms', 'PVEVMAdmin', { tokens: ['bob@pve!ci'] })
  await access.deleteToken('bob@pve', 'ci')
  assert.deepEqual(await access.acl(rootInPerson), [])
  await assert.rejects(access.deleteToken('bob@pve', 'ci'), /no such token/)
})
