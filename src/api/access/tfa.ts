/** `/access/tfa` and what `/access/users/{userid}` says of it: second factors. Secrets come in and are never told again. */
import { array, boolean, enumOf, integer, nothing, object, optional, string } from '#base/schema/schema.ts'
import { any, anyone, check, checkAny, self } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'
import { user } from './fields.ts'

const factorTypes = ['totp', 'u2f', 'webauthn', 'recovery', 'yubico'] as const
const id = string({ description: 'Which one, as the list names it.', maxLength: 64 })
const description = optional(string({ description: 'Which app or key it is.', maxLength: 255 }))
const password = optional(
  string({
    description: 'Current password of the caller; root@pam needs none.',
    minLength: 5,
    maxLength: 64,
    isSecret: true,
  }),
)
const factor = {
  id: string(),
  type: enumOf(factorTypes),
  description: string(),
  created: integer(),
  enable: optional(boolean({ default: true })),
}
const locks = { 'totp-locked': optional(boolean()), 'tfa-locked-until': optional(integer()) }

const mayRead = any(self('userid'), checkAny(['User.Modify', 'Sys.Audit'], '/access/users/{userid}'))
const mayChange = any(self('userid'), check('User.Modify', '/access/users/{userid}'))

export const tfaEndpoints = [
  endpoint({
    method: 'GET',
    path: '/access/tfa',
    description: 'Users with second factors the caller may see, always the caller himself.',
    params: {},
    permission: anyone,
    returns: array(object({ userid: user, entries: array(object(factor)), ...locks })),
    cli: {
      command: ['user', 'tfa', 'overview'],
      columns: ['userid', 'totp-locked', 'tfa-locked-until'],
      id: 'userid',
    },
    handle: (_, { services, who, may }) =>
      services.access.tfa.list(async (userid) => {
        const about = `/access/users/${userid}`
        return userid === who.authId || (await may(about, 'User.Modify')) || (await may(about, 'Sys.Audit'))
      }),
  }),
  endpoint({
    method: 'GET',
    path: '/access/tfa/{userid}',
    description: 'Second factors of a user.',
    params: { userid: user },
    permission: mayRead,
    returns: array(object(factor)),
    cli: {
      command: ['user', 'tfa', 'list'],
      positional: ['userid'],
      columns: ['id', 'type', 'description', 'created', 'enable'],
      id: 'id',
    },
    handle: ({ userid }, { services }) => services.access.tfa.items(userid),
  }),
  endpoint({
    method: 'POST',
    path: '/access/tfa/{userid}',
    description:
      'Add a second factor: a one-time password proven by its present code, recovery codes, which are in the reply and nowhere else, or a security key in two calls.',
    params: {
      userid: user,
      type: enumOf(factorTypes, { description: 'Kind of factor.' }),
      description,
      totp: optional(
        string({ description: 'Secret of the app, as `otpauth://totp/…`.', maxLength: 2048, isSecret: true }),
      ),
      value: optional(
        string({ description: 'Present code of the app, or what the browser answered.', maxLength: 16_384 }),
      ),
      challenge: optional(
        string({ description: 'The challenge the browser answered; without it there is a new one.', maxLength: 256 }),
      ),
      password,
    },
    permission: mayChange,
    refusesTokens: true,
    returns: object({
      id: optional(string()),
      challenge: optional(string()),
      recovery: optional(array(string({ isSecret: true }))),
    }),
    cli: {
      command: ['user', 'tfa', 'add'],
      positional: ['userid', 'type'],
      examples: ['user tfa add bob@pve', 'user tfa add bob@pve recovery -o json'],
    },
    handle: ({ userid, password: given, ...wanted }, { services, who, remoteAddress }) =>
      services.access.tfa.add({ who, userid, password: given, address: remoteAddress }, wanted),
  }),
  endpoint({
    method: 'GET',
    path: '/access/tfa/{userid}/{id}',
    description: 'One second factor of a user.',
    params: { userid: user, id },
    permission: mayRead,
    returns: object(factor),
    cli: { command: ['user', 'tfa', 'show'], positional: ['userid', 'id'] },
    handle: (params, { services }) => services.access.tfa.item(params.userid, params.id),
  }),
  endpoint({
    method: 'PUT',
    path: '/access/tfa/{userid}/{id}',
    description: 'Describe a second factor anew, or switch it off or on.',
    params: { userid: user, id, description, enable: optional(boolean({ description: 'It may be used.' })), password },
    permission: mayChange,
    refusesTokens: true,
    returns: nothing,
    cli: {
      command: ['user', 'tfa', 'set'],
      positional: ['userid', 'id'],
      examples: ['user tfa set bob@pve recovery --enable 0'],
    },
    handle: (params, { services, who, remoteAddress }) =>
      services.access.tfa
        .change({ who, userid: params.userid, password: params.password, address: remoteAddress }, params.id, params)
        .then(() => null),
  }),
  endpoint({
    method: 'DELETE',
    path: '/access/tfa/{userid}/{id}',
    description: 'Delete a second factor.',
    params: { userid: user, id, password },
    permission: mayChange,
    refusesTokens: true,
    returns: nothing,
    cli: { command: ['user', 'tfa', 'delete'], destroys: 'id', positional: ['userid', 'id'] },
    handle: (params, { services, who, remoteAddress }) =>
      services.access.tfa
        .delete({ who, userid: params.userid, password: params.password, address: remoteAddress }, params.id)
        .then(() => null),
  }),
  endpoint({
    method: 'GET',
    path: '/access/users/{userid}/tfa',
    description: 'Kinds of second factors a user has, and what the realm demands.',
    params: {
      userid: user,
      multiple: optional(boolean({ description: 'All kinds, not only the one older clients know.', default: false })),
    },
    permission: mayRead,
    returns: object({
      realm: optional(enumOf(['oath', 'yubico'])),
      user: optional(enumOf(['oath', 'u2f'])),
      types: optional(array(enumOf(['totp', 'u2f', 'yubico', 'webauthn', 'recovery']))),
    }),
    async handle({ userid, multiple = false }, { services }) {
      const { types, realm } = await services.access.tfa.types(userid)
      return {
        ...(realm === undefined ? {} : { realm }),
        ...(multiple ? { types } : {}),
        ...(!multiple && types.includes('totp') ? { user: 'oath' as const } : {}),
      }
    },
  }),
  endpoint({
    method: 'PUT',
    path: '/access/users/{userid}/unlock-tfa',
    description: 'Lift the lock that repeated failures of second factors led to; says whether there was one.',
    params: { userid: user },
    permission: check('User.Modify', '/access/users/{userid}'),
    returns: boolean(),
    cli: { command: ['user', 'tfa', 'unlock'], positional: ['userid'] },
    handle: ({ userid }, { services }) => services.access.tfa.unlock(userid),
  }),
]
