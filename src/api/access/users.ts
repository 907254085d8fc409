/**
 * `/access/users`. The path `/access/users/{userid}` in a permission asks what the caller may do to that user:
 * rights on `/access/groups`, on a group of the user, and on the user's realm.
 */
import { splitList } from '#base/schema/formats.ts'
import { array, boolean, integer, nothing, object, optional, record, string } from '#base/schema/schema.ts'
import { all, any, anyone, check, checkAny, type Permission } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'
import { groupList, newPassword, tokenFacts, tokenId, user, userFacts } from './fields.ts'

/** Putting somebody into groups needs the right on all groups, or on each of those. */
function mayFill(groups: readonly string[]): Permission {
  const onAll = check('User.Modify', '/access/groups')
  return groups.length === 0
    ? onAll
    : any(onAll, all(...groups.map((group) => check('User.Modify', `/access/groups/${group}`))))
}

export const userEndpoints = [
  endpoint({
    method: 'GET',
    path: '/access/users',
    description: 'Users the caller may see; always the caller himself.',
    params: {
      enabled: optional(boolean({ description: 'Only those who may log in, or only those who may not.' })),
      full: optional(boolean({ description: 'With groups and tokens.', default: false })),
    },
    permission: anyone,
    returns: array(
      object({
        userid: user,
        ...userFacts,
        groups: groupList('Groups of the user.'),
        'realm-type': optional(string()),
        'totp-locked': optional(boolean()),
        'tfa-locked-until': optional(integer()),
        tokens: optional(array(object({ tokenid: tokenId, ...tokenFacts }))),
      }),
    ),
    cli: {
      command: ['user', 'list'],
      columns: ['userid', 'enable', 'expire', 'firstname', 'lastname', 'email', 'comment'],
      id: 'userid',
    },
    isKept: true,
    handle: (params, { services, who }) => services.access.users(who, params),
  }),
  endpoint({
    method: 'POST',
    path: '/access/users',
    description: 'Create a user.',
    params: { userid: user, ...userFacts, groups: groupList('Groups of the user.'), password: optional(newPassword) },
    permission: check('Realm.AllocateUser', '/access/users/{userid}'),
    alsoNeeds: {
      says: 'User.Modify on /access/groups, or on each of the groups given',
      of: ({ groups }) => [mayFill(splitList(groups ?? ''))],
    },
    returns: nothing,
    cli: {
      command: ['user', 'create'],
      positional: ['userid'],
      examples: ['user create bob@pve --groups staff --comment "Bob Berger"'],
    },
    handle: ({ userid, groups, ...facts }, { services }) =>
      services.access.createUser(userid, { ...facts, groups: splitList(groups ?? '') }).then(() => null),
  }),
  endpoint({
    method: 'GET',
    path: '/access/users/{userid}',
    description: 'One user, with groups and tokens.',
    params: { userid: user },
    permission: checkAny(['User.Modify', 'Sys.Audit'], '/access/users/{userid}'),
    returns: object({ ...userFacts, groups: optional(array(string())), tokens: optional(record()) }),
    cli: { command: ['user', 'show'], positional: ['userid'] },
    isKept: true,
    handle: ({ userid }, { services }) => services.access.user(userid),
  }),
  endpoint({
    method: 'PUT',
    path: '/access/users/{userid}',
    description: 'Change what is known about a user.',
    params: {
      userid: user,
      ...userFacts,
      groups: groupList('New groups of the user.'),
      append: optional(boolean({ description: 'Add to the groups instead of replacing them.', requires: 'groups' })),
    },
    permission: check('User.Modify', '/access/users/{userid}'),
    alsoNeeds: {
      says: 'User.Modify on /access/groups, or on each of the groups given',
      of: ({ groups }) => (groups === undefined ? [] : [mayFill(splitList(groups))]),
    },
    returns: nothing,
    cli: { command: ['user', 'set'], positional: ['userid'], examples: ['user set bob@pve --enable 0'] },
    handle: ({ userid, groups, append, ...facts }, { services }) =>
      services.access
        .updateUser(userid, { ...facts, groups: groups === undefined ? undefined : splitList(groups) }, { append })
        .then(() => null),
  }),
  endpoint({
    method: 'DELETE',
    path: '/access/users/{userid}',
    description: 'Delete a user, with tokens and permissions.',
    params: { userid: user },
    permission: check(['Realm.AllocateUser', 'User.Modify'], '/access/users/{userid}'),
    returns: nothing,
    cli: { command: ['user', 'delete'], destroys: 'userid', positional: ['userid'] },
    handle: ({ userid }, { services }) => services.access.deleteUser(userid).then(() => null),
  }),
]
