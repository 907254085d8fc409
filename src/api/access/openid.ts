/** `/access/openid`: logging in through an OpenID provider. */
import { array, object, string } from '#base/schema/schema.ts'
import { anyone, world } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'
import { loggedIn } from './fields.ts'

const redirectUrl = string({
  description: 'Address of the client the provider sends its user back to: https, or http to localhost.',
  maxLength: 255,
})

export const openidEndpoints = [
  endpoint({
    method: 'GET',
    path: '/access/openid',
    description: 'What is below this path.',
    params: {},
    permission: anyone,
    returns: array(object({ subdir: string() })),
    handle: () => ['auth-url', 'login'].map((subdir) => ({ subdir })),
  }),
  endpoint({
    method: 'POST',
    path: '/access/openid/auth-url',
    description:
      'Begin a log-in through the provider of a realm: the address the user has to visit, good for ten minutes.',
    params: {
      realm: string({ description: 'Name of the realm.', format: 'pve-realm', maxLength: 32 }),
      'redirect-url': redirectUrl,
    },
    permission: world,
    returns: string({ description: 'Address at the provider.' }),
    cli: {
      command: ['realm', 'login-url'],
      positional: ['realm', 'redirect-url'],
      examples: ['realm login-url office https://node.example.org:8006'],
    },
    handle: ({ realm, 'redirect-url': back }, { services, remoteAddress }) =>
      services.access.openId.begin(realm, { redirectUrl: back, address: remoteAddress }),
  }),
  endpoint({
    method: 'POST',
    path: '/access/openid/login',
    description:
      'End a log-in with what the provider sent its user back with, and get a ticket; with NeedTFA it is half of one, as at `/access/ticket`.',
    params: {
      // Worth nothing without the code.
      state: string({ description: 'As the provider sent it back.', maxLength: 1024 }),
      code: string({ description: 'As the provider sent it back.', maxLength: 4096, isSecret: true }),
      'redirect-url': redirectUrl,
    },
    permission: world,
    returns: loggedIn,
    cli: { command: ['realm', 'login'], positional: ['redirect-url', 'state'] },
    handle: ({ state, code, 'redirect-url': back }, { services, remoteAddress }) =>
      services.access.openIdLogin({ state, code, redirectUrl: back, address: remoteAddress }),
  }),
]
