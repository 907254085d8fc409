import assert from 'node:assert/strict'
import { test } from 'node:test'
import { privileges } from './privilege.ts'
import { builtInRoles } from './role.ts'

test('the built-in roles are those every client knows', () => {
  assert.deepEqual([...builtInRoles.keys()].toSorted(), [
    'Administrator',
    'NoAccess',
    'PVEAdmin',
    'PVEAuditor',
    'PVEDatastoreAdmin',
    'PVEDatastoreUser',
    'PVEMappingAdmin',
    'PVEMappingUser',
    'PVEPoolAdmin',
    'PVEPoolUser',
    'PVESDNAdmin',
    'PVESDNUser',
    'PVESysAdmin',
    'PVETemplateUser',
    'PVEUserAdmin',
    'PVEVMAdmin',
    'PVEVMUser',
  ])
})

test('the administrator holds everything, and NoAccess nothing', () => {
  assert.deepEqual(builtInRoles.get('Administrator'), privileges)
  assert.deepEqual(builtInRoles.get('NoAccess'), [])
})

test('a user of virtual machines may use them and not make them', () => {
  const held = builtInRoles.get('PVEVMUser') ?? []
  assert.deepEqual(held, [
    'VM.Audit',
    'VM.Backup',
    'VM.Config.CDROM',
    'VM.Config.Cloudinit',
    'VM.Console',
    'VM.GuestAgent.Audit',
    'VM.GuestAgent.FileRead',
    'VM.GuestAgent.FileSystemMgmt',
    'VM.GuestAgent.FileWrite',
    'VM.PowerMgmt',
  ])
})

test('the auditor looks at everything and changes nothing', () => {
  assert.deepEqual(builtInRoles.get('PVEAuditor'), [
    'Datastore.Audit',
    'Mapping.Audit',
    'Pool.Audit',
    'SDN.Audit',
    'Sys.Audit',
    'VM.Audit',
    'VM.GuestAgent.Audit',
  ])
})

test('the general administrator neither hands out rights nor touches the machine or its devices', () => {
  const held = new Set(builtInRoles.get('PVEAdmin'))
  const lacking = privileges.filter((privilege) => !held.has(privilege))
  assert.deepEqual(lacking, [
    'Mapping.Modify',
    'Permissions.Modify',
    'Realm.Allocate',
    'Sys.AccessNetwork',
    'Sys.Incoming',
    'Sys.Modify',
    'Sys.PowerMgmt',
  ])
})
