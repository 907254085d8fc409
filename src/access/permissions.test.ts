import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type AclEntry, indexAcl } from './acl.ts'
import { Permissions } from './permissions.ts'
import { privileges } from './privilege.ts'
import { realmsIn } from './realm-options.ts'
import { builtInRoles } from './role.ts'
import type { Token, User, World } from './world.ts'

const plain: User = { enable: true, expire: 0, groups: [] }
const token = (privsep: boolean): Token => ({ privsep, expire: 0, hash: '' })

function worldOf(acl: readonly AclEntry[], changes: Partial<World> = {}): World {
  return {
    revision: 1,
    users: new Map([
      ['root@pam', plain],
      ['bob@pve', { ...plain, groups: ['staff'] }],
      ['eve@pve', plain],
    ]),
    groups: new Map([['staff', {}]]),
    tokens: new Map([
      ['bob@pve!own', token(true)],
      ['bob@pve!full', token(false)],
      ['root@pam!full', token(false)],
      ['root@pam!own', token(true)],
    ]),
    ownRoles: new Map([['Powerless', { privs: [] }]]),
    acl: indexAcl(acl),
    realms: realmsIn({}),
    poolsOf: () => [],
    ...changes,
  }
}

const give = (path: string, type: AclEntry['type'], ugid: string, roleid: string, propagate = true): AclEntry => ({
  path,
  type,
  ugid,
  roleid,
  propagate,
})

test('root may do everything everywhere, whatever the ACL says', () => {
  const permissions = new Permissions(worldOf([give('/', 'user', 'root@pam', 'NoAccess')]))
  assert.deepEqual([...permissions.on('root@pam', '/vms/100').keys()], privileges)
})

test('a token of root without rights of its own holds everything; one with rights of its own only those', () => {
  const permissions = new Permissions(worldOf([give('/vms', 'token', 'root@pam!own', 'PVETemplateUser')]))
  assert.equal(permissions.on('root@pam!full', '/').size, privileges.length)
  assert.equal(permissions.on('root@pam!own', '/').size, 0)
  assert.deepEqual([...permissions.on('root@pam!own', '/vms/100').keys()], ['VM.Audit', 'VM.Clone'])
})

test('nobody who does not exist holds anything', () => {
  const acl = [give('/', 'user', 'ghost@pve', 'Administrator'), give('/', 'token', 'bob@pve!gone', 'Administrator')]
  const permissions = new Permissions(worldOf(acl))
  assert.equal(permissions.on('ghost@pve', '/').size, 0)
  assert.equal(permissions.on('bob@pve!gone', '/').size, 0)
})

test('a role nobody knows gives nothing', () => {
  assert.equal(new Permissions(worldOf([give('/', 'user', 'bob@pve', 'Vanished')])).on('bob@pve', '/').size, 0)
})

test('a member of a pool carries the rights of the pool', () => {
  const acl = [give('/pool/dev', 'group', 'staff', 'PVEVMUser')]
  const permissions = new Permissions(worldOf(acl, { poolsOf: (path) => (path === '/vms/100' ? ['dev'] : []) }))
  assert.ok(permissions.on('bob@pve', '/vms/100').has('VM.PowerMgmt'))
  assert.ok(!permissions.on('bob@pve', '/vms/101').has('VM.PowerMgmt'))
  assert.ok(permissions.on('bob@pve!full', '/vms/100').has('VM.PowerMgmt'))
  assert.ok(!permissions.on('bob@pve!own', '/vms/100').has('VM.PowerMgmt'))
})

test('what may be done to a user follows from all groups, from the own groups, and from the realm', () => {
  const ofStaff = new Permissions(worldOf([give('/access/groups/staff', 'user', 'eve@pve', 'PVEUserAdmin')]))
  assert.deepEqual([...ofStaff.on('eve@pve', '/access/users/bob@pve').keys()], ['Group.Allocate', 'User.Modify'])
  assert.equal(ofStaff.on('eve@pve', '/access/users/eve@pve').size, 0)
  const ofRealm = new Permissions(worldOf([give('/access/realm/pve', 'user', 'eve@pve', 'PVEUserAdmin')]))
  assert.deepEqual([...ofRealm.on('eve@pve', '/access/users/bob@pve').keys()], ['Realm.AllocateUser'])
  assert.equal(ofRealm.on('eve@pve', '/access/users/bob@pam').size, 0)
})

test('root itself is touched only by who may hand out every right anyhow', () => {
  const userAdmin = new Permissions(worldOf([give('/', 'user', 'eve@pve', 'PVEUserAdmin')]))
  assert.ok(userAdmin.on('eve@pve', '/access/users/bob@pve').has('User.Modify'))
  assert.ok(!userAdmin.on('eve@pve', '/access/users/root@pam').has('User.Modify'))
  const administrator = new Permissions(worldOf([give('/', 'user', 'eve@pve', 'Administrator')]))
  assert.ok(administrator.on('eve@pve', '/access/users/root@pam').has('User.Modify'))
})

test('a login says by area what may be offered', () => {
  const acl = [
    give('/vms/100', 'user', 'bob@pve', 'PVETemplateUser'),
    give('/pool/a', 'user', 'bob@pve', 'PVEDatastoreUser'),
  ]
  const cap = new Permissions(worldOf(acl)).capabilities('bob@pve')
  assert.deepEqual(cap, {
    vms: { 'VM.Audit': 1, 'VM.Clone': 1 },
    access: {},
    storage: { 'Datastore.AllocateSpace': 1, 'Datastore.Audit': 1 },
    nodes: {},
    sdn: {},
    dc: {},
    mapping: {},
  })
  const ofRoot = new Permissions(worldOf([])).capabilities('root@pam')
  assert.deepEqual(ofRoot.dc, { 'SDN.Allocate': 1, 'SDN.Audit': 1, 'SDN.Use': 1, 'Sys.Audit': 1, 'Sys.Modify': 1 })
  assert.equal(ofRoot.nodes?.['Sys.PowerMgmt'], 1)
  assert.equal(ofRoot.access?.['User.Modify'], 1)
})

const paths = ['/', '/vms', '/vms/100', '/storage', '/storage/local', '/pool', '/pool/dev', '/access/users/bob@pve']
const someAcl = fc.array(
  fc
    .record({
      path: fc.constantFrom(...paths.slice(0, -1)),
      subject: fc.constantFrom('user bob@pve', 'group staff', 'token bob@pve!own', 'token bob@pve!full'),
      roleid: fc.constantFrom(...builtInRoles.keys(), 'Powerless'),
      propagate: fc.boolean(),
    })
    .map(({ path, subject, roleid, propagate }) => {
      const [type = '', ugid = ''] = subject.split(' ')
      return give(path, type === 'user' ? 'user' : type === 'group' ? 'group' : 'token', ugid, roleid, propagate)
    }),
  { maxLength: 16 },
)

test('a token never holds more than its user, nor passes on more', () => {
  fc.assert(
    fc.property(someAcl, fc.constantFrom(...paths), fc.boolean(), (acl, path, isInPool) => {
      const permissions = new Permissions(
        worldOf(acl, { poolsOf: (on) => (isInPool && on === '/vms/100' ? ['dev'] : []) }),
      )
      const ofUser = permissions.on('bob@pve', path)
      for (const [privilege, propagates] of permissions.on('bob@pve!own', path)) {
        assert.ok(ofUser.has(privilege), `${privilege} on ${path}`)
        assert.ok(!propagates || ofUser.get(privilege), `${privilege} propagates on ${path}`)
      }
      assert.deepEqual(permissions.on('bob@pve!full', path), ofUser)
    }),
    { numRuns: 1_000 },
  )
})
