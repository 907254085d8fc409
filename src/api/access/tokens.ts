/** `/access/users/{userid}/token`: API tokens. A token never manages its user's tokens unless given the right. */
import { splitList } from '#base/schema/formats.ts'
import { array, boolean, nothing, object, optional, string } from '#base/schema/schema.ts'
import { any, check, self } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'
import { tokenFacts, tokenId, tokenInfo, user } from './fields.ts'

const ownOrManaged = any(self('userid'), check('User.Modify', '/access/users/{userid}'))

export const tokenEndpoints = [
  endpoint({
    method: 'GET',
    path: '/access/users/{userid}/token',
    description: 'Tokens of a user.',
    params: { userid: user },
    permission: ownOrManaged,
    returns: array(object({ tokenid: tokenId, ...tokenFacts })),
    cli: {
      command: ['token', 'list'],
      positional: ['userid'],
      columns: ['tokenid', 'privsep', 'expire', 'comment'],
      id: 'tokenid',
    },
    handle: ({ userid }, { services }) => services.access.tokens(userid),
  }),
  endpoint({
    method: 'GET',
    path: '/access/users/{userid}/token/{tokenid}',
    description: 'One token, without its secret.',
    params: { userid: user, tokenid: tokenId },
    permission: ownOrManaged,
    returns: tokenInfo,
    cli: { command: ['token', 'show'], positional: ['userid', 'tokenid'] },
    handle: ({ userid, tokenid }, { services }) => services.access.token(userid, tokenid),
  }),
  endpoint({
    method: 'POST',
    path: '/access/users/{userid}/token/{tokenid}',
    description:
      'Create a token. Its secret is in the reply and nowhere else. Until `hako acl set` gives it rights, it has none (privsep).',
    params: { userid: user, tokenid: tokenId, ...tokenFacts },
    permission: ownOrManaged,
    returns: object({ 'full-tokenid': string(), value: string({ isSecret: true }), info: tokenInfo }),
    cli: {
      command: ['token', 'create'],
      positional: ['userid', 'tokenid'],
      columns: ['full-tokenid', 'value'],
      id: 'full-tokenid',
      examples: [
        'token create bob@pve ci --comment "nightly builds"',
        "acl set /vms --tokens 'bob@pve!ci' --roles PVEVMUser",
      ],
    },
    handle: ({ userid, tokenid, ...facts }, { services }) => services.access.createToken(userid, tokenid, facts),
  }),
  endpoint({
    method: 'PUT',
    path: '/access/users/{userid}/token/{tokenid}',
    description: 'Change a token, or give it a new secret.',
    params: {
      userid: user,
      tokenid: tokenId,
      ...tokenFacts,
      delete: optional(
        string({ description: 'What to unset: comment, expire.', format: 'pve-configid-list', maxLength: 256 }),
      ),
      regenerate: optional(boolean({ description: 'Make a new secret; the old one ends.', default: false })),
    },
    permission: ownOrManaged,
    returns: object({
      ...tokenFacts,
      'full-tokenid': optional(string()),
      value: optional(string({ isSecret: true })),
    }),
    cli: {
      command: ['token', 'set'],
      positional: ['userid', 'tokenid'],
      examples: ['token set bob@pve ci --regenerate'],
    },
    handle: ({ userid, tokenid, delete: drop, ...facts }, { services }) =>
      services.access.updateToken(userid, tokenid, { ...facts, drop: splitList(drop ?? '') }),
  }),
  endpoint({
    method: 'DELETE',
    path: '/access/users/{userid}/token/{tokenid}',
    description: 'Delete a token, with its permissions.',
    params: { userid: user, tokenid: tokenId },
    permission: ownOrManaged,
    returns: nothing,
    cli: { command: ['token', 'delete'], destroys: 'tokenid', positional: ['userid', 'tokenid'] },
    handle: ({ userid, tokenid }, { services }) => services.access.deleteToken(userid, tokenid).then(() => null),
  }),
]
