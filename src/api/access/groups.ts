/** `/access/groups`: groups of users. */
import { array, nothing, object, optional, string } from '#base/schema/schema.ts'
import { anyone, check, checkAny } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'
import { comment, groupId } from './fields.ts'

const mayChange = check('Group.Allocate', '/access/groups')

export const groupEndpoints = [
  endpoint({
    method: 'GET',
    path: '/access/groups',
    description: 'Groups the caller has a right on.',
    params: {},
    permission: anyone,
    returns: array(object({ groupid: groupId, comment, users: optional(string()) })),
    cli: { command: ['group', 'list'], columns: ['groupid', 'users', 'comment'], id: 'groupid' },
    isKept: true,
    handle: (_, { services, who }) => services.access.groups(who),
  }),
  endpoint({
    method: 'POST',
    path: '/access/groups',
    description: 'Create a group.',
    params: { groupid: groupId, comment },
    permission: mayChange,
    returns: nothing,
    cli: {
      command: ['group', 'create'],
      positional: ['groupid'],
      examples: ['group create staff --comment "everybody here"'],
    },
    handle: (params, { services }) => services.access.createGroup(params.groupid, params.comment).then(() => null),
  }),
  endpoint({
    method: 'GET',
    path: '/access/groups/{groupid}',
    description: 'Members of a group.',
    params: { groupid: groupId },
    permission: checkAny(['Sys.Audit', 'Group.Allocate'], '/access/groups'),
    returns: object({ comment, members: array(string()) }),
    cli: { command: ['group', 'show'], positional: ['groupid'] },
    isKept: true,
    handle: ({ groupid }, { services }) => services.access.group(groupid),
  }),
  endpoint({
    method: 'PUT',
    path: '/access/groups/{groupid}',
    description: 'Change the note of a group.',
    params: { groupid: groupId, comment },
    permission: mayChange,
    returns: nothing,
    cli: { command: ['group', 'set'], positional: ['groupid'] },
    handle: (params, { services }) => services.access.updateGroup(params.groupid, params.comment).then(() => null),
  }),
  endpoint({
    method: 'DELETE',
    path: '/access/groups/{groupid}',
    description: 'Delete a group, with its permissions; its members stay.',
    params: { groupid: groupId },
    permission: mayChange,
    returns: nothing,
    cli: { command: ['group', 'delete'], destroys: 'groupid', positional: ['groupid'] },
    handle: ({ groupid }, { services }) => services.access.deleteGroup(groupid).then(() => null),
  }),
]
