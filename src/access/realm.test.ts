import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { bobsPassword, give, invalidField, smallWorld, worldOf } from './small-world.ts'

const office = { server1: 'ldap.example.org', base_dn: 'dc=example,dc=org', user_attr: 'uid' }

test('a realm is made, shown without its secrets, changed under its digest, and deleted', async () => {
  await using world = await smallWorld()
  const { realms } = world
  await realms.create('office', 'ldap', { ...office, bind_dn: 'cn=reader', password: 'open sesame', comment: 'desks' })
  const { digest, ...shown } = await realms.get('office')
  assert.deepEqual(shown, { type: 'ldap', options: { ...office, bind_dn: 'cn=reader', comment: 'desks' } })
  assert.equal(await realms.password('office'), 'open sesame')
  assert.deepEqual((await realms.list()).at(-1), { realm: 'office', type: 'ldap', comment: 'desks' })

  await realms.update('office', { set: { port: 1389 }, remove: ['comment'], digest })
  await assert.rejects(
    realms.update('office', { set: { port: 1 }, remove: [], digest }),
    /detected modified configuration/,
  )
  assert.deepEqual((await realms.get('office')).options, { ...office, bind_dn: 'cn=reader', port: 1389 })
  assert.equal(await realms.password('office'), 'open sesame')
  await realms.update('office', { set: {}, remove: ['password'] })
  assert.equal(await realms.password('office'), undefined)

  await realms.update('office', { set: { password: 'again' }, remove: [] })
  await realms.delete('office')
  await assert.rejects(realms.get('office'), { message: "realm 'office' does not exist" })
  assert.equal(await realms.password('office'), undefined)
})

test('what a type does not know or cannot do without is named', async () => {
  await using world = await smallWorld()
  const { realms } = world
  const { server1: _, ...incomplete } = office
  await assert.rejects(realms.create('office', 'ldap', incomplete), invalidField('server1', /needs it/))
  await assert.rejects(realms.create('office', 'ad', { server1: 'x' }), invalidField('domain', /needs it/))
  await assert.rejects(realms.create('web', 'openid', office), invalidField('base_dn', /no such option/))
  await assert.rejects(realms.create('pam2', 'pam', {}), invalidField('type', /one realm of the type pam/))
  await assert.rejects(realms.update('pve', { set: { server1: 'x' }, remove: [] }), invalidField('server1', /no such/))
  await assert.rejects(
    realms.update('pve', { set: { tfa: 'type=yubico' }, remove: [] }),
    invalidField('tfa', /not served/),
  )
  await realms.create('office', 'ldap', office)
  await assert.rejects(realms.create('office', 'ldap', office), { message: "realm 'office' already exists" })
  await assert.rejects(realms.update('office', { set: {}, remove: ['base_dn'] }), invalidField('base_dn', /needs it/))
  await assert.rejects(
    realms.update('office', { set: {}, remove: ['issuer-url'] }),
    invalidField('delete', /issuer-url/),
  )
  for (const realm of ['pam', 'pve']) await assert.rejects(realms.delete(realm), { message: /built in/ })
})

test('at most one realm is the default', async () => {
  await using world = await smallWorld()
  const { realms } = world
  const defaults = async () => (await realms.list()).flatMap((item) => (item.default ? [item.realm] : []))
  await realms.update('pve', { set: { default: true }, remove: [] })
  assert.deepEqual(await defaults(), ['pve'])
  await realms.create('office', 'ldap', { ...office, default: true })
  assert.deepEqual(await defaults(), ['office'])
  await Promise.all(
    ['pam', 'pve', 'office'].map((realm) => realms.update(realm, { set: { default: true }, remove: [] })),
  )
  assert.equal((await defaults()).length, 1)
  await realms.update((await defaults())[0] ?? '', { set: {}, remove: ['default'] })
  assert.deepEqual(await defaults(), [])
})

test('users of a directory are known, cannot log in here, and stand still when their realm is gone', async () => {
  await using world = await worldOf('bob@pve')
  const { access, realms } = world
  await assert.rejects(access.createUser('ann@office', {}), invalidField('userid', /realm 'office' does not exist/))
  await realms.create('office', 'ldap', office)
  await access.createUser('ann@office', {})
  const { value } = await access.createToken('ann@office', 'ci', {})
  await give(world, '/access/realm/office', 'PVEAuditor', { users: ['bob@pve'] })
  const attempt = access.login({ username: 'ann@office', password: bobsPassword, address: '' })
  await assert.rejects(attempt, (error) => {
    return (
      isFault(error, 'unauthenticated') && /cannot check passwords of the realm 'office' \(ldap\)/.test(error.message)
    )
  })
  assert.equal((await access.tokenIdentity(`ann@office!ci=${value}`)).user, 'ann@office')
  await realms.delete('office')
  await assert.rejects(access.tokenIdentity(`ann@office!ci=${value}`), { message: "realm 'office' does not exist" })
  assert.deepEqual(await access.acl({ user: 'root@pam', authId: 'root@pam' }), [])
})
