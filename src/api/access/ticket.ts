/** `/access/ticket`: logging in. */
import { world } from '#rest/endpoint.ts'
import { splitList } from '#base/schema/formats.ts'
import { boolean, integer, nothing, optional, string } from '#base/schema/schema.ts'
import { endpoint } from '../call.ts'
import { loggedIn } from './fields.ts'

export const ticketEndpoints = [
  endpoint({
    method: 'GET',
    path: '/access/ticket',
    description: 'Answers nothing; clients use it to see whether the API is there.',
    params: {},
    permission: world,
    returns: nothing,
    handle: () => null,
  }),
  endpoint({
    method: 'POST',
    path: '/access/ticket',
    description:
      'Log in: prove a password, or a ticket that still holds, and get a ticket for two hours. With a second factor the reply says NeedTFA, and the call is made again with that ticket as `tfa-challenge`.',
    params: {
      username: string({ description: 'User, as `name@realm`, or the name alone with `realm`.', maxLength: 64 }),
      password: string({
        description:
          'Password or ticket; with `tfa-challenge` `totp:<code>`, `recovery:<code>` or `webauthn:<answer>`.',
        maxLength: 16_384,
        isSecret: true,
      }),
      realm: optional(string({ description: 'Realm of the user.', format: 'pve-realm', maxLength: 32 })),
      path: optional(
        string({ description: 'Only prove rights on this path; no ticket.', maxLength: 64, requires: 'privs' }),
      ),
      privs: optional(
        string({
          description: 'Privileges to prove on `path`.',
          format: 'pve-priv-list',
          maxLength: 64,
          requires: 'path',
        }),
      ),
      otp: optional(string({ description: 'One-time password of older clients.', maxLength: 1024, isSecret: true })),
      'tfa-challenge': optional(
        string({ description: 'Ticket of the first step, for the second factor.', maxLength: 24_576, isSecret: true }),
      ),
      'new-format': optional(boolean({ description: 'Accepted and not needed.', default: true })),
    },
    permission: world,
    refusesTokens: true,
    returns: loggedIn,
    handle: (
      { username, password, realm, path, privs, otp, 'tfa-challenge': tfaChallenge },
      { services, remoteAddress, signal },
    ) =>
      services.access.login({
        username,
        password,
        realm,
        path,
        otp,
        tfaChallenge,
        privs: privs === undefined ? undefined : splitList(privs),
        address: remoteAddress,
        signal,
      }),
  }),
  endpoint({
    method: 'POST',
    path: '/access/vncticket',
    description: 'Check that a console ticket was written for this user, path and port, and that the user may open it.',
    params: {
      authid: string({ description: 'User, or token.', maxLength: 64 }),
      path: string({ description: 'What the console belongs to: `/vms/100`, `/nodes/lab`.', maxLength: 64 }),
      privs: string({ description: 'Privileges the user must hold there.', format: 'pve-priv-list', maxLength: 64 }),
      vncticket: string({ description: 'The ticket.', maxLength: 512, isSecret: true }),
      port: optional(
        integer({
          description: 'Number of the console; a ticket written for one holds only with it.',
          minimum: 1,
          maximum: 65_535,
        }),
      ),
    },
    permission: world,
    returns: nothing,
    async handle({ authid: authId, path, privs, vncticket, port }, { services }) {
      await services.access.consoles.verify(vncticket, { authId, path, port }, splitList(privs))
      return null
    },
  }),
]
