/** `/access/ticket`: logging in. */
import { world } from '#rest/endpoint.ts'
import { splitList } from '#base/schema/formats.ts'
import { boolean, integer, nothing, object, optional, record, string } from '#base/schema/schema.ts'
import { endpoint } from '../call.ts'

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
    returns: object({
      username: string(),
      ticket: optional(string()),
      CSRFPreventionToken: optional(string()),
      cap: optional(record()),
      clustername: optional(string()),
      NeedTFA: optional(integer()),
    }),
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
]
