/** `/access/acl`: who has which role where. */
import { splitList } from '#base/schema/formats.ts'
import { array, boolean, enumOf, nothing, object, optional, string } from '#base/schema/schema.ts'
import { anyone, mayModify } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'
import { groupList } from './fields.ts'

const path = string({ description: 'Where the roles hold, for instance `/vms/100`.', maxLength: 128 })
const propagate = optional(boolean({ description: 'They hold for everything below too.', default: true }))

export const aclEndpoints = [
  endpoint({
    method: 'GET',
    path: '/access/acl',
    description: 'Entries of the access control list the caller may see.',
    params: {},
    permission: anyone,
    returns: array(
      object({
        path,
        type: enumOf(['user', 'group', 'token']),
        ugid: string(),
        roleid: string(),
        propagate,
      }),
    ),
    cli: { command: ['acl', 'list'], columns: ['path', 'type', 'ugid', 'roleid', 'propagate'] },
    isKept: true,
    handle: (_, { services, who }) => services.access.acl(who),
  }),
  endpoint({
    method: 'PUT',
    path: '/access/acl',
    description: 'Give roles on a path to users, groups and tokens, or take them away with `delete`.',
    params: {
      path,
      roles: string({
        description: 'Roles, as `hako role list` names them.',
        format: 'pve-roleid-list',
        maxLength: 4096,
      }),
      users: optional(string({ description: 'Users, as name@realm.', format: 'pve-userid-list', maxLength: 4096 })),
      groups: groupList('Groups.'),
      tokens: optional(
        string({ description: 'API tokens, as name@realm!token.', format: 'pve-tokenid-list', maxLength: 4096 }),
      ),
      propagate,
      delete: optional(boolean({ description: 'Take the roles away.' })),
    },
    permission: mayModify('{path}'),
    returns: nothing,
    cli: {
      command: ['acl', 'set'],
      positional: ['path'],
      examples: [
        'acl set /vms --users bob@pve --roles PVEVMUser',
        'acl set /vms --users bob@pve --roles PVEVMUser --delete',
      ],
    },
    handle: (params, { services, who }) =>
      services.access
        .changeAcl(who, {
          path: params.path,
          roles: splitList(params.roles),
          users: splitList(params.users ?? ''),
          groups: splitList(params.groups ?? ''),
          tokens: splitList(params.tokens ?? ''),
          propagate: params.propagate ?? true,
          isRemoval: params.delete ?? false,
        })
        .then(() => null),
  }),
]
