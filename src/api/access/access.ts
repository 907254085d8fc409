/** The branch `/access`: its own index and permissions, and everything below it. */
import { array, object, optional, record, string } from '#base/schema/schema.ts'
import { anyone } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'
import { aclEndpoints } from './acl.ts'
import { domainEndpoints } from './domains.ts'
import { groupEndpoints } from './groups.ts'
import { openidEndpoints } from './openid.ts'
import { passwordEndpoints } from './password.ts'
import { roleEndpoints } from './roles.ts'
import { tfaEndpoints } from './tfa.ts'
import { ticketEndpoints } from './ticket.ts'
import { tokenEndpoints } from './tokens.ts'
import { userEndpoints } from './users.ts'

const children = [
  'acl',
  'domains',
  'groups',
  'openid',
  'password',
  'permissions',
  'roles',
  'tfa',
  'ticket',
  'users',
  'vncticket',
]

export const accessEndpoints = [
  endpoint({
    method: 'GET',
    path: '/access',
    description: 'What is below this path.',
    params: {},
    permission: anyone,
    returns: array(object({ subdir: string() })),
    handle: () => children.map((subdir) => ({ subdir })),
  }),
  endpoint({
    method: 'GET',
    path: '/access/permissions',
    description: 'Effective privileges by path; 1 where they also hold below it, else 0.',
    params: {
      path: optional(string({ description: 'Only on this path.', maxLength: 128 })),
      userid: optional(
        string({
          description: 'User or token; default: the caller.',
          pattern: /[^\s:/]+@[A-Za-z][A-Za-z0-9._-]+(?:![A-Za-z][A-Za-z0-9._-]+)?/,
          maxLength: 128,
        }),
      ),
    },
    permission: anyone,
    returns: record({ description: 'Path to privilege to 1 or 0.' }),
    cli: {
      command: ['user', 'permissions'],
      examples: ['user permissions --userid bob@pve --path /vms/100'],
    },
    isKept: true,
    handle: (params, { services, who }) => services.access.permissionsOf(who, params),
  }),
  ...ticketEndpoints,
  ...tfaEndpoints,
  ...domainEndpoints,
  ...openidEndpoints,
  ...passwordEndpoints,
  ...userEndpoints,
  ...tokenEndpoints,
  ...aclEndpoints,
  ...roleEndpoints,
  ...groupEndpoints,
]
