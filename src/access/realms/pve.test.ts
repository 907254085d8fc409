import assert from 'node:assert/strict'
import { test } from 'node:test'
import { standardCost } from '#base/argon2id.ts'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { openMemoryStore } from '#store/memory.ts'
import { hashPassword, passwordMatches } from '../password.ts'
import { cheap } from '../small-world.ts'
import { userCreation } from '../user.ts'
import { AccessState } from '../world.ts'
import { PveRealm } from './pve.ts'

async function bobWith(password: string, cost = cheap) {
  const state = new AccessState(openMemoryStore())
  const realm = new PveRealm({ state, random: systemRandom, cost })
  const hash = await realm.hash(password)
  await state.change((world) => userCreation(world, 'bob@pve', {}, hash))
  return { state, realm }
}

test('a password is right for its user, and no other password and no other user is', async () => {
  const { realm } = await bobWith('correct horse')
  assert.ok(await realm.verify('bob', 'correct horse'))
  assert.ok(!(await realm.verify('bob', 'correct horsf')))
  assert.ok(!(await realm.verify('bob', '')))
  assert.ok(!(await realm.verify('eve', 'correct horse')))
})

test('passwords of any script, and of the shortest and longest length, are right again', async () => {
  for (const password of ['パスワード箱船です', '12345678', 'x'.repeat(64), 'tab\tand ünïcode']) {
    const { realm } = await bobWith(password)
    assert.ok(await realm.verify('bob', password), password)
  }
})

test('what is kept is an argon2id hash at the cost of RFC 9106, with a salt of its own', async () => {
  const [one, two] = [
    await hashPassword(systemRandom, 'correct horse', standardCost),
    await hashPassword(systemRandom, 'correct horse', standardCost),
  ]
  assert.match(one, /^\$argon2id\$v=19\$m=65536,t=3,p=4\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/)
  assert.notEqual(one, two)
  assert.ok(await passwordMatches(one, 'correct horse'))
})

test('a hash made elsewhere by the reference implementation is understood', async () => {
  // echo -n password | argon2 somesalt -id -t 2 -k 65536 -p 1 -l 32
  const known = '$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc'
  assert.ok(await passwordMatches(known, 'password'))
  assert.ok(!(await passwordMatches(known, 'Password')))
})

test('a login at another cost than today is hashed anew', async () => {
  const { state, realm } = await bobWith('correct horse')
  const before = await state.passwordHash('bob@pve')
  const dearer = new PveRealm({ state, random: systemRandom, cost: { memoryKiB: 16, passes: 2, lanes: 1 } })
  assert.ok(await dearer.verify('bob', 'correct horse'))
  const after = await state.passwordHash('bob@pve')
  assert.notEqual(after, before)
  assert.match(after ?? '', /m=16,t=2,p=1/)
  assert.ok(await realm.verify('bob', 'correct horse'))
})

test('a password of fewer than 8 or more than 64 characters is refused by its rule', async () => {
  const { realm } = await bobWith('correct horse')
  for (const [password, rule] of [
    ['1234567', 'value must be at least 8 characters long'],
    ['x'.repeat(65), 'value may only be 64 characters long'],
  ] as const) {
    await assert.rejects(realm.hash(password), (error) => isFault(error, 'invalid') && error.fields?.password === rule)
  }
})

test('a damaged hash is said to be damaged and not repeated', async () => {
  await assert.rejects(passwordMatches('$argon2id$v=19$m=8,t=1,p=1$c2FsdA$broken', 'x'), (error) => {
    assert.ok(isFault(error, 'damaged'))
    assert.doesNotMatch(error.message, /broken/)
    return true
  })
})
