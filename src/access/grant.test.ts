import assert from 'node:assert/strict'
import { test } from 'node:test'
import { userIdentity } from './identity.ts'
import { bob, give, invalidField, rootInPerson, take, worldOf } from './small-world.ts'

test('a role is made, changed, listed and shown', async () => {
  await using world = await worldOf()
  const { access } = world
  await access.createRole('Operator', ['VM.PowerMgmt', 'VM.Audit', 'VM.Audit'])
  assert.deepEqual(await access.role('Operator'), { 'VM.Audit': true, 'VM.PowerMgmt': true })
  await access.updateRole('Operator', ['VM.Console'], true)
  const listed = (await access.roles()).find(({ roleid }) => roleid === 'Operator')
  assert.deepEqual(listed, { roleid: 'Operator', privs: 'VM.Audit,VM.Console,VM.PowerMgmt', special: false })
  await access.updateRole('Operator', [])
  assert.deepEqual(await access.role('Operator'), {})
  await assert.rejects(
    access.createRole('Odd', ['VM.Monitor']),
    invalidField('privs', /invalid privilege 'VM.Monitor'/),
  )
})

test('built-in roles stay as they are, and their names are kept free', async () => {
  await using world = await worldOf()
  const { access } = world
  await assert.rejects(access.updateRole('PVEAdmin', []), /auto-generated role 'PVEAdmin' cannot be modified/)
  await assert.rejects(access.deleteRole('Administrator'), /auto-generated role 'Administrator' cannot be deleted/)
  await assert.rejects(access.createRole('pveNew', []), invalidField('roleid', /built-in/))
})

test('a changed or deleted role changes the rights of everybody who has it, at once and in every process', async () => {
  await using world = await worldOf('bob@pve')
  const { access } = world
  const elsewhere = world.another()
  await access.createRole('Operator', ['VM.Audit'])
  await give(world, '/vms', 'Operator', { users: ['bob@pve'] })
  assert.deepEqual([...(await elsewhere.privilegesOn(bob, '/vms/100')).keys()], ['VM.Audit'])
  await access.updateRole('Operator', ['VM.Console'])
  assert.deepEqual([...(await elsewhere.privilegesOn(bob, '/vms/100')).keys()], ['VM.Console'])
  await access.deleteRole('Operator')
  assert.equal((await elsewhere.privilegesOn(bob, '/vms/100')).size, 0)
  await access.createRole('Operator', ['VM.Audit'])
  assert.equal((await elsewhere.privilegesOn(bob, '/vms/100')).size, 0)
})

test('a group gives its roles to its members, and takes them along when it goes', async () => {
  await using world = await worldOf('bob@pve')
  const { access } = world
  await access.createGroup('staff', 'day shift')
  await give(world, '/vms', 'PVEVMUser', { groups: ['staff'] })
  await access.updateUser('bob@pve', { groups: ['staff'] })
  assert.ok((await access.privilegesOn(bob, '/vms/100')).has('VM.Console'))
  assert.deepEqual(await access.group('staff'), { comment: 'day shift', members: ['bob@pve'] })
  assert.deepEqual(await access.groups(bob), [])
  assert.deepEqual(await access.groups(rootInPerson), [{ groupid: 'staff', comment: 'day shift', users: 'bob@pve' }])
  await access.updateGroup('staff', 'all day')
  assert.equal((await access.group('staff')).comment, 'all day')
  await access.deleteGroup('staff')
  assert.equal((await access.privilegesOn(bob, '/vms/100')).size, 0)
  assert.deepEqual((await access.user('bob@pve')).groups, [])
  assert.deepEqual(await access.acl(rootInPerson), [])
})

test('rights are given and taken on a path, whatever its slashes', async () => {
  await using world = await worldOf('bob@pve')
  const { access } = world
  await give(world, '//vms/100/', 'PVEVMUser', { users: ['bob@pve', 'bob@pve'] })
  assert.deepEqual(await access.acl(rootInPerson), [
    { path: '/vms/100', type: 'user', ugid: 'bob@pve', roleid: 'PVEVMUser', propagate: true },
  ])
  assert.ok((await access.privilegesOn(bob, '/vms//100/')).has('VM.Console'))
  await take(world, '/vms/100', 'PVEVMUser', { users: ['bob@pve'] })
  await take(world, '/vms/100', 'PVEVMUser', { users: ['bob@pve'] })
  assert.deepEqual(await access.acl(rootInPerson), [])
})

test('an ACL change that names no path, nobody or no role is refused by field', async () => {
  await using world = await worldOf('bob@pve')
  await assert.rejects(
    give(world, '/elsewhere', 'PVEAdmin', { users: ['bob@pve'] }),
    invalidField('path', /invalid ACL path/),
  )
  await assert.rejects(give(world, '/', 'PVEAdmin', {}), invalidField('users', /either 'users', 'groups' or 'tokens'/))
  const nobody = { path: '/', roles: [], users: ['bob@pve'], propagate: true, isRemoval: false }
  await assert.rejects(world.access.changeAcl(rootInPerson, nobody), invalidField('roles', /at least one/))
})

test('who may give rights by owning a branch gives no more than he holds', async () => {
  await using world = await worldOf('bob@pve', 'eve@pve')
  const { access } = world
  await give(world, '/vms/100', 'PVEVMAdmin', { users: ['bob@pve'] })
  const grant = (roleid: string, propagate = true, isRemoval = false) =>
    access.changeAcl(bob, { path: '/vms/100', roles: [roleid], users: ['eve@pve'], propagate, isRemoval })
  await grant('PVEVMUser')
  assert.ok((await access.privilegesOn(userIdentity('eve@pve'), '/vms/100')).has('VM.Console'))
  await assert.rejects(grant('Administrator'), invalidField('roles', /superset of privileges/))
  await assert.rejects(grant('NoAccess'), invalidField('roles', /Permissions\.Modify/))
  await grant('PVEVMUser', true, true)
  const unpropagated = {
    path: '/vms/100',
    roles: ['PVEVMAdmin'],
    users: ['bob@pve'],
    propagate: false,
    isRemoval: false,
  }
  await access.changeAcl(rootInPerson, unpropagated)
  await assert.rejects(grant('PVEVMUser'), invalidField('roles', /with propagation/))
  await grant('PVEVMUser', false)
})

test('the ACL is shown as far as it may be changed, or as a whole to an auditor', async () => {
  await using world = await worldOf('bob@pve', 'eve@pve')
  const { access } = world
  await give(world, '/vms/100', 'PVEVMAdmin', { users: ['bob@pve'] })
  await give(world, '/storage/local', 'PVEVMAdmin', { users: ['eve@pve'] })
  assert.deepEqual(
    (await access.acl(bob)).map(({ path }) => path),
    ['/vms/100'],
  )
  assert.deepEqual(await access.acl(userIdentity('eve@pve')), [])
  await give(world, '/access', 'PVEAuditor', { users: ['eve@pve'] })
  assert.equal((await access.acl(userIdentity('eve@pve'))).length, 3)
})

test('everybody may ask what he may do; what others may do is for auditors', async () => {
  await using world = await worldOf('bob@pve', 'eve@pve')
  const { access } = world
  await access.createToken('bob@pve', 'ci', {})
  await give(world, '/vms', 'PVETemplateUser', { users: ['bob@pve'] })
  assert.deepEqual(await access.permissionsOf(bob, {}), { '/vms': { 'VM.Audit': 1, 'VM.Clone': 1 } })
  assert.deepEqual(await access.permissionsOf(bob, { path: '/vms/100' }), {
    '/vms/100': { 'VM.Audit': 1, 'VM.Clone': 1 },
  })
  assert.deepEqual(await access.permissionsOf(bob, { userid: 'bob@pve!ci' }), {})
  const byEve = access.permissionsOf(userIdentity('eve@pve'), { userid: 'bob@pve' })
  await assert.rejects(byEve, { message: 'Permission check failed (/access, Sys.Audit)' })
  await give(world, '/access', 'PVEAuditor', { users: ['eve@pve'] })
  assert.ok((await access.permissionsOf(userIdentity('eve@pve'), { userid: 'bob@pve' }))['/vms'])
  await assert.rejects(access.permissionsOf(rootInPerson, { userid: 'ghost@pve' }), /no such user/)
})

test('a path held without propagation is shown with 0', async () => {
  await using world = await worldOf('bob@pve')
  const grant = { path: '/vms', roles: ['PVETemplateUser'], users: ['bob@pve'], propagate: false, isRemoval: false }
  await world.access.changeAcl(rootInPerson, grant)
  assert.deepEqual(await world.access.permissionsOf(bob, {}), { '/vms': { 'VM.Audit': 0, 'VM.Clone': 0 } })
})
