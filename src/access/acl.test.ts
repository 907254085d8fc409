import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type AclEntry, indexAcl, isAclPath, levelsOf, normalizePath, rolesOn, withPoolRoles } from './acl.ts'

const bob = { user: 'bob@pve', groups: ['staff', 'night'] }

function held(entries: readonly AclEntry[], path: string, reader: Parameters<typeof rolesOn>[1] = bob) {
  return Object.fromEntries(rolesOn(indexAcl(entries), reader, path))
}

function entry(path: string, subject: string, roleid: string, propagate = true): AclEntry {
  const [type = '', ugid = ''] = subject.split(':')
  return { path, type: type === 'user' ? 'user' : type === 'group' ? 'group' : 'token', ugid, roleid, propagate }
}

test('a role on a branch holds on everything below it', () => {
  const acl = [entry('/vms', 'user:bob@pve', 'A')]
  assert.deepEqual(held(acl, '/vms/100'), { A: true })
  assert.deepEqual(held(acl, '/vms'), { A: true })
  assert.deepEqual(held(acl, '/'), {})
  assert.deepEqual(held(acl, '/storage/local'), {})
})

test('a role that does not propagate holds on its own path only', () => {
  const acl = [entry('/vms', 'user:bob@pve', 'A', false)]
  assert.deepEqual(held(acl, '/vms'), { A: false })
  assert.deepEqual(held(acl, '/vms/100'), {})
})

test('a deeper level replaces what was inherited instead of adding to it', () => {
  const acl = [entry('/', 'user:bob@pve', 'A'), entry('/vms/100', 'user:bob@pve', 'B')]
  assert.deepEqual(held(acl, '/vms/100'), { B: true })
  assert.deepEqual(held(acl, '/vms/101'), { A: true })
})

test('an entry that does not apply replaces nothing', () => {
  const acl = [entry('/', 'user:bob@pve', 'A'), entry('/vms', 'user:bob@pve', 'B', false)]
  assert.deepEqual(held(acl, '/vms/100'), { A: true })
})

test('at one level the user counts before the groups, and several groups are united', () => {
  const groups = [entry('/vms', 'group:staff', 'A'), entry('/vms', 'group:night', 'B', false)]
  assert.deepEqual(held(groups, '/vms'), { A: true, B: false })
  assert.deepEqual(held(groups, '/vms/100'), { A: true })
  assert.deepEqual(held([...groups, entry('/vms', 'user:bob@pve', 'C')], '/vms'), { C: true })
})

test('a group entry further down replaces a user entry further up', () => {
  const acl = [entry('/', 'user:bob@pve', 'A'), entry('/vms', 'group:staff', 'B')]
  assert.deepEqual(held(acl, '/vms/100'), { B: true })
})

test('the same role of two groups propagates when one of them does', () => {
  const acl = [entry('/vms', 'group:staff', 'A', false), entry('/vms', 'group:night', 'A')]
  assert.deepEqual(held(acl, '/vms'), { A: true })
})

test('NoAccess cancels every other role', () => {
  const acl = [entry('/vms', 'group:staff', 'A'), entry('/vms', 'group:night', 'NoAccess')]
  assert.deepEqual(held(acl, '/vms/100'), { NoAccess: true })
})

test('a token with rights of its own reads its own entries only', () => {
  const acl = [entry('/', 'user:bob@pve', 'A'), entry('/', 'group:staff', 'B'), entry('/vms', 'token:bob@pve!ci', 'C')]
  assert.deepEqual(held(acl, '/vms/100', { token: 'bob@pve!ci' }), { C: true })
  assert.deepEqual(held(acl, '/storage', { token: 'bob@pve!ci' }), {})
})

test('a pool adds its roles to a member, on the member alone', () => {
  const own = new Map([['A', true]])
  const pool = new Map([
    ['A', true],
    ['B', true],
  ])
  assert.deepEqual(Object.fromEntries(withPoolRoles(own, [pool])), { A: true, B: false })
})

test('NoAccess on a pool wins over roles, and NoAccess on the member over the pool', () => {
  const refusal = new Map([['NoAccess', true]])
  const role = new Map([['A', true]])
  assert.deepEqual([...withPoolRoles(role, [role, refusal])], [['NoAccess', false]])
  assert.deepEqual([...withPoolRoles(refusal, [role])], [['NoAccess', true]])
})

test('rights are given on the paths there are, and on no others', () => {
  for (const path of [
    '/',
    '/access',
    '/access/groups',
    '/access/groups/staff',
    '/access/realm/pve',
    '/nodes',
    '/nodes/lab',
    '/pool/a/b/c',
    '/sdn/zones/z/v/12',
    '/sdn/fabrics',
    '/storage/local',
    '/vms/100',
    '/mapping/pci/gpu',
  ]) {
    assert.ok(isAclPath(path), path)
  }
  for (const path of [
    '',
    'vms',
    '/vms/99',
    '/vms/100/config',
    '/access/users/bob@pve',
    '/pool/a/b/c/d',
    '/nodes/-x',
    '/storage/a/b',
    '/elsewhere',
    '/vms/',
  ]) {
    assert.ok(!isAclPath(path), path)
  }
})

test('slashes in a path are tidied', () => {
  assert.equal(normalizePath('//vms///100/'), '/vms/100')
  assert.equal(normalizePath('///'), '/')
  assert.equal(normalizePath('vms'), undefined)
})

// The rule once more, slow and word by word: look at each level in turn, forget the level above when the
// level has something to say.
function slowRoles(entries: readonly AclEntry[], reader: Parameters<typeof rolesOn>[1], path: string) {
  let result: AclEntry[] = []
  for (const level of levelsOf(path)) {
    const speaking = entries.filter((one) => one.path === level && (one.propagate || level === path))
    const ofToken = speaking.filter((one) => one.type === 'token' && 'token' in reader && one.ugid === reader.token)
    const ofUser = speaking.filter((one) => one.type === 'user' && 'user' in reader && one.ugid === reader.user)
    const ofGroups = speaking.filter(
      (one) => one.type === 'group' && 'user' in reader && reader.groups.includes(one.ugid),
    )
    const first = [ofToken, ofUser, ofGroups].find((some) => some.length > 0)
    if (first) result = first
  }
  const refused = result.filter((one) => one.roleid === 'NoAccess')
  const standing = refused.length > 0 ? refused : result
  const roles: Record<string, boolean> = {}
  for (const one of standing) roles[one.roleid] = (roles[one.roleid] ?? false) || one.propagate
  return roles
}

const somePath = fc.constantFrom('/', '/vms', '/vms/100', '/vms/101', '/pool', '/pool/a', '/pool/a/b', '/sdn/zones/z')
const someEntry = fc
  .record({
    path: somePath,
    subject: fc.constantFrom(
      'user:bob@pve',
      'user:eve@pve',
      'group:staff',
      'group:night',
      'group:x',
      'token:bob@pve!ci',
    ),
    roleid: fc.constantFrom('A', 'B', 'C', 'NoAccess'),
    propagate: fc.boolean(),
  })
  .map(({ path, subject, roleid, propagate }) => entry(path, subject, roleid, propagate))
const someAcl = fc.uniqueArray(someEntry, {
  maxLength: 24,
  selector: ({ path, type, ugid, roleid }) => `${path} ${type} ${ugid} ${roleid}`,
})
const someReader = fc.constantFrom(
  bob,
  { user: 'eve@pve', groups: [] },
  { user: 'nobody@pve', groups: ['staff'] },
  { token: 'bob@pve!ci' },
)

test('any ACL gives the roles the rule gives when read word by word', () => {
  fc.assert(
    fc.property(someAcl, someReader, somePath, (acl, reader, path) => {
      assert.deepEqual(held(acl, path, reader), slowRoles(acl, reader, path))
    }),
    { numRuns: 2_000 },
  )
})
