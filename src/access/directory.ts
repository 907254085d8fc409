/** What may be told about users, groups, tokens and ACL, in the shapes of the wire, filtered by what the asker may see. */
import { entriesOf, type AclEntry } from './acl.ts'
import { membersOf, requireGroup } from './group.ts'
import type { Permissions } from './permissions.ts'
import { rolesIn } from './role.ts'
import { infoOf, requireToken, splitTokenId, type TokenInfo } from './token.ts'
import { requireUser, splitUserId, tokensOf } from './user.ts'
import type { User, World } from './world.ts'

export interface TokenItem extends TokenInfo {
  readonly tokenid: string
}

export interface UserDetail extends Omit<User, 'groups'> {
  readonly groups: string[]
  readonly tokens?: Record<string, TokenInfo>
}

export interface UserItem extends Omit<User, 'groups'> {
  readonly userid: string
  readonly 'realm-type': string
  readonly groups?: string
  readonly tokens?: TokenItem[]
  readonly 'totp-locked'?: boolean
  readonly 'tfa-locked-until'?: number
}

export interface GroupItem {
  readonly groupid: string
  readonly comment?: string | undefined
  readonly users: string
}

export interface RoleItem {
  readonly roleid: string
  /** Joined with `,`. */
  readonly privs: string
  /** Built in: cannot be changed. */
  readonly special: boolean
}

const auditors = ['User.Modify', 'Sys.Audit']
const holdsAny = (held: ReadonlyMap<string, boolean>, wanted: readonly string[]) => wanted.some((one) => held.has(one))

export function tokenItems(world: World, userid: string): TokenItem[] {
  requireUser(world, userid)
  return tokensOf(world, userid).map((fullId) => {
    const { tokenid = '' } = splitTokenId(fullId) ?? {}
    return { tokenid, ...infoOf(requireToken(world, userid, tokenid)) }
  })
}

export function userDetail(world: World, userid: string): UserDetail {
  const { groups, ...facts } = requireUser(world, userid)
  const tokens = tokenItems(world, userid).map(({ tokenid, ...info }) => [tokenid, info] as const)
  return { ...facts, groups: [...groups], ...(tokens.length > 0 ? { tokens: Object.fromEntries(tokens) } : {}) }
}

export interface UserFilter {
  readonly enabled?: boolean | undefined
  readonly full?: boolean | undefined
}

/**
 * Users the asker may see: all with a right on `/access/groups`, those of a group with a right on that
 * group, and always himself.
 * @param locks of second factors, by user
 */
export function userItems(
  world: World,
  permissions: Permissions,
  asker: string,
  { enabled, full = false, locks }: UserFilter & { readonly locks: ReadonlyMap<string, object> },
): UserItem[] {
  return [...world.users]
    .filter(([userid]) => userid === asker || holdsAny(permissions.on(asker, `/access/users/${userid}`), auditors))
    .filter(([, user]) => enabled === undefined || user.enable === enabled)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([userid, { groups, ...facts }]) => ({
      userid,
      ...facts,
      'realm-type': world.realms.get(splitUserId(userid)?.realm ?? '')?.type ?? 'unknown',
      ...locks.get(userid),
      ...(full ? { groups: groups.join(','), tokens: tokenItems(world, userid) } : {}),
    }))
}

export function roleItems(world: World): RoleItem[] {
  return rolesIn(world).map(({ roleid, privileges, isBuiltIn }) => ({
    roleid,
    privs: privileges.join(','),
    special: isBuiltIn,
  }))
}

/** Groups the asker has a right on, or on all groups. */
export function groupItems(world: World, permissions: Permissions, asker: string): GroupItem[] {
  const rights = ['User.Modify', 'Sys.Audit', 'Group.Allocate']
  return [...world.groups]
    .filter(([groupid]) => holdsAny(permissions.on(asker, `/access/groups/${groupid}`), rights))
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([groupid, { comment }]) => ({
      groupid,
      ...(comment === undefined ? {} : { comment }),
      users: membersOf(world, groupid).join(','),
    }))
}

export function groupDetail(world: World, groupid: string): { comment?: string; members: string[] } {
  const { comment } = requireGroup(world, groupid)
  return { ...(comment === undefined ? {} : { comment }), members: membersOf(world, groupid) }
}

/** Entries on paths the asker may change; all of them with `Sys.Audit` on `/access`. */
export function aclItems(world: World, permissions: Permissions, asker: string): AclEntry[] {
  const seesAll = permissions.on(asker, '/access').has('Sys.Audit')
  const mayChange = (path: string) => holdsAny(permissions.on(asker, path), modifyPrivileges(path))
  const key = ({ path, type, ugid, roleid }: AclEntry) => `${path} ${type} ${ugid} ${roleid}`
  return entriesOf(world.acl)
    .filter(({ path }) => seesAll || mayChange(path))
    .toSorted((a, b) => (key(a) < key(b) ? -1 : 1))
}

/** Any one of these allows to change permissions on the path. */
function modifyPrivileges(path: string): string[] {
  if (path.startsWith('/storage/')) return ['Permissions.Modify', 'Datastore.Allocate']
  if (path.startsWith('/vms/')) return ['Permissions.Modify', 'VM.Allocate']
  if (path.startsWith('/pool/')) return ['Permissions.Modify', 'Pool.Allocate']
  return ['Permissions.Modify']
}
