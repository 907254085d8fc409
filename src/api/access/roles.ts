/** `/access/roles`: named sets of privileges. */
import { privileges } from '#access/privilege.ts'
import { splitList } from '#base/schema/formats.ts'
import { array, boolean, nothing, object, optional, type Properties, string } from '#base/schema/schema.ts'
import { anyone, check } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'
import { privilegeList, roleId } from './fields.ts'

const onePropertyEach: Properties = Object.fromEntries(privileges.map((name) => [name, optional(boolean())]))
const mayChange = check('Sys.Modify', '/access')

export const roleEndpoints = [
  endpoint({
    method: 'GET',
    path: '/access/roles',
    description: 'All roles.',
    params: {},
    permission: anyone,
    returns: array(object({ roleid: roleId, privs: optional(string()), special: optional(boolean()) })),
    cli: { command: ['role', 'list'], columns: ['roleid', 'special', 'privs'], id: 'roleid' },
    isKept: true,
    handle: (_, { services }) => services.access.roles(),
  }),
  endpoint({
    method: 'POST',
    path: '/access/roles',
    description: 'Create a role.',
    params: { roleid: roleId, privs: privilegeList },
    permission: mayChange,
    returns: nothing,
    cli: {
      command: ['role', 'create'],
      positional: ['roleid'],
      examples: ['role create Operator --privs VM.Audit,VM.PowerMgmt'],
    },
    handle: ({ roleid, privs }, { services }) =>
      services.access.createRole(roleid, splitList(privs ?? '')).then(() => null),
  }),
  endpoint({
    method: 'GET',
    path: '/access/roles/{roleid}',
    description: 'Privileges of a role, each with 1.',
    params: { roleid: roleId },
    permission: anyone,
    returns: object(onePropertyEach),
    cli: { command: ['role', 'show'], positional: ['roleid'] },
    isKept: true,
    handle: ({ roleid }, { services }) => services.access.role(roleid),
  }),
  endpoint({
    method: 'PUT',
    path: '/access/roles/{roleid}',
    description: 'Replace the privileges of a role, or add to them.',
    params: {
      roleid: roleId,
      privs: privilegeList,
      append: optional(boolean({ description: 'Add instead of replacing.', requires: 'privs' })),
    },
    permission: mayChange,
    returns: nothing,
    cli: {
      command: ['role', 'set'],
      positional: ['roleid'],
      examples: ['role set Operator --privs VM.Console --append'],
    },
    handle: ({ roleid, privs, append }, { services }) =>
      services.access.updateRole(roleid, splitList(privs ?? ''), append).then(() => null),
  }),
  endpoint({
    method: 'DELETE',
    path: '/access/roles/{roleid}',
    description: 'Delete a role, and take it from everybody who has it.',
    params: { roleid: roleId },
    permission: mayChange,
    returns: nothing,
    cli: { command: ['role', 'delete'], destroys: 'roleid', positional: ['roleid'] },
    handle: ({ roleid }, { services }) => services.access.deleteRole(roleid).then(() => null),
  }),
]
