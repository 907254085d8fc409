/** `/access/password`: a user's own password, or somebody else's. */
import { nothing, optional } from '#base/schema/schema.ts'
import { any, check, self } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'
import { confirmation, newPassword, user } from './fields.ts'

export const passwordEndpoints = [
  endpoint({
    method: 'PUT',
    path: '/access/password',
    description: 'Change a password. Everybody but root@pam confirms with their own.',
    params: { userid: user, password: newPassword, 'confirmation-password': optional(confirmation) },
    permission: any(self('userid'), check(['Realm.AllocateUser', 'User.Modify'], '/access/users/{userid}')),
    refusesTokens: true,
    returns: nothing,
    cli: { command: ['user', 'password'], positional: ['userid'] },
    handle: ({ userid, password, 'confirmation-password': confirmed }, { services, who, remoteAddress }) =>
      services.access
        .changePassword(who, { userid, password, confirmation: confirmed, address: remoteAddress })
        .then(() => null),
  }),
]
