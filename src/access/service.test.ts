import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bobsPassword, rootInPerson, worldOf } from './small-world.ts'

const password = bobsPassword

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
