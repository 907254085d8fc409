import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bobsPassword, rootInPerson, worldOf } from './small-world.ts'

const password = bobsPassword

test('the generated administrator is made, and made again with a new password', async () => {
  await using world = await worldOf()
  const { access } = world
  for (const generated of ['first generated one', 'second generated one']) {
    await access.ensureUser({ userid: 'admin@pve', password: generated, roles: ['Administrator'] })
    await access.updateUser('admin@pve', { comment: 'kept' })
    const { username, cap } = await access.login({ username: 'admin@pve', password: generated, address: '' })
    assert.equal(username, 'admin@pve')
    assert.equal(cap?.nodes?.['Sys.PowerMgmt'], 1)
  }
  assert.equal((await access.user('admin@pve')).comment, 'kept')
  await assert.rejects(
    access.login({ username: 'admin@pve', password: 'first generated one', address: '' }),
    /authentication failure/,
  )
})

test('changes of two processes at one time all happen, or say why not', async () => {
  await using world = await worldOf()
  const [one, other] = [world.access, world.another()]
  const names = Array.from({ length: 8 }, (_, n) => `user${n}@pve`)
  await Promise.all(names.map((name, n) => (n % 2 === 0 ? one : other).createUser(name, {})))
  assert.equal((await world.access.users(rootInPerson, {})).length, 9)
  const twice = await Promise.allSettled([one, other].map((access) => access.createUser('same@pve', {})))
  assert.deepEqual(twice.map(({ status }) => status).toSorted(), ['fulfilled', 'rejected'])
})

test('a role is never given and deleted so that the entry survives the role', async () => {
  for (let round = 0; round < 20; round += 1) {
    await using world = await worldOf('bob@pve')
    await world.access.createRole('Operator', ['VM.Audit'])
    await Promise.allSettled([
      world.another().changeAcl(rootInPerson, {
        path: '/',
        roles: ['Operator'],
        users: ['bob@pve'],
        propagate: true,
        isRemoval: false,
      }),
      world.access.deleteRole('Operator'),
    ])
    assert.deepEqual(await world.access.acl(rootInPerson), [])
  }
})

test('no secret reaches the log: not at a login, not with a token, not in a ticket', async () => {
  await using world = await worldOf('bob@pve')
  const { access } = world
  const { ticket = '', CSRFPreventionToken = '' } = await access.login({
    username: 'bob@pve',
    password,
    address: '10.0.0.1',
  })
  const { value } = await access.createToken('bob@pve', 'ci', {})
  await access.tokenIdentity(`bob@pve!ci=${value}`)
  await access.login({ username: 'bob@pve', password: ticket, address: '10.0.0.1' })
  await access.login({ username: 'bob@pve', password: `${password}?`, address: '10.0.0.1' }).catch(() => {})
  const log = world.logged.join('\n')
  assert.match(log, /logged in/)
  for (const secret of [password, value, ticket, CSRFPreventionToken]) assert.ok(!log.includes(secret))
})
