/**
 * Giving and taking roles on a path.
 *
 * Whoever may do so without `Permissions.Modify` (the owner of a storage, of a VM, of a pool) hands out no
 * more than he holds: each privilege of the role, and its propagation, must be his own on that path.
 */
import { Fault, invalid } from '#base/fault.ts'
import type { Write } from '#store/store.ts'
import { type AclEntry, type AclSubject, isAclPath, noAccess, normalizePath } from './acl.ts'
import { requireGroup } from './group.ts'
import { requireRole } from './role.ts'
import { splitTokenId } from './token.ts'
import { requireUser } from './user.ts'
import { keyOf, type World } from './world.ts'

export interface Grant {
  readonly path: string
  readonly roles: readonly string[]
  readonly users?: readonly string[]
  readonly groups?: readonly string[]
  readonly tokens?: readonly string[]
  readonly propagate: boolean
  readonly isRemoval: boolean
}

/** @param held what the giver holds on the path */
export function grantWrites(world: World, grant: Grant, held: ReadonlyMap<string, boolean>): Write[] {
  const path = requireAclPath(grant.path)
  const subjects = subjectsOf(world, grant)
  const roles = [...new Set(grant.roles)]
  if (roles.length === 0) throw invalid({ roles: 'at least one role is required' })
  for (const roleid of roles) refuseToExceed(roleid, requireRole(world, roleid), grant, held)
  return roles
    .flatMap((roleid) =>
      subjects.map((subject): AclEntry => ({ path, ...subject, roleid, propagate: grant.propagate })),
    )
    .map((entry) => (grant.isRemoval ? { delete: keyOf.acl(entry) } : { put: keyOf.acl(entry), value: entry }))
}

/** @throws Fault `invalid` naming the kinds of paths there are. */
export function requireAclPath(text: string): string {
  const path = normalizePath(text)
  if (path !== undefined && isAclPath(path)) return path
  throw invalid({
    path: `invalid ACL path '${text}'; rights are given on /, /access, /nodes, /pool, /sdn, /storage, /vms, /mapping and on what is in them`,
  })
}

function subjectsOf(world: World, grant: Grant): { type: AclSubject; ugid: string }[] {
  const { users = [], groups = [], tokens = [] } = grant
  if (users.length + groups.length + tokens.length === 0) {
    const text = "either 'users', 'groups' or 'tokens' is required."
    throw invalid({ users: text, groups: text, tokens: text })
  }
  for (const userid of users) requireUser(world, userid)
  for (const groupid of groups) requireGroup(world, groupid)
  for (const fullId of tokens) requireFullToken(world, fullId)
  const as = (type: AclSubject, ids: readonly string[]) => [...new Set(ids)].map((ugid) => ({ type, ugid }))
  return [...as('user', users), ...as('group', groups), ...as('token', tokens)]
}

function requireFullToken(world: World, fullId: string): void {
  requireUser(world, splitTokenId(fullId)?.userid ?? fullId)
  if (!world.tokens.has(fullId)) throw new Fault('missing', `no such token '${fullId}'`)
}

function refuseToExceed(
  roleid: string,
  privileges: readonly string[],
  { isRemoval, propagate }: Grant,
  held: ReadonlyMap<string, boolean>,
): void {
  if (held.has('Permissions.Modify')) return
  const act = `${isRemoval ? 'remove' : 'add'} role '${roleid}'`
  if (roleid === noAccess) throw invalid({ roles: `Cannot ${act} - requires 'Permissions.Modify'.` })
  if (privileges.some((privilege) => !held.has(privilege))) {
    throw invalid({ roles: `Cannot ${act} - requires 'Permissions.Modify' or superset of privileges.` })
  }
  if (!isRemoval && propagate && privileges.some((privilege) => held.get(privilege) !== true)) {
    throw invalid({
      roles: `Cannot ${act} with propagation - requires 'Permissions.Modify' or propagated superset of privileges.`,
    })
  }
}
