/**
 * Roles: named sets of privileges. The built-in ones follow from the table of privileges; own ones are in
 * the store. An id beginning with `PVE` is never given to an own role, so a built-in role of a later version
 * cannot meet one.
 */
import { Fault, invalid, missing } from '#base/fault.ts'
import type { Write } from '#store/store.ts'
import { aclRemovals } from './acl-change.ts'
import { asPrivileges, type Privilege, privileges, privilegeSets } from './privilege.ts'
import { keyOf, type World } from './world.ts'

export interface Role {
  readonly roleid: string
  readonly privileges: readonly string[]
  readonly isBuiltIn: boolean
}

export const administrator = 'Administrator'

export const builtInRoles: ReadonlyMap<string, readonly Privilege[]> = deriveRoles()

function deriveRoles(): Map<string, readonly Privilege[]> {
  const roles = new Map<string, readonly Privilege[]>([
    [administrator, privileges],
    ['NoAccess', []],
    ['PVETemplateUser', ['VM.Audit', 'VM.Clone']],
  ])
  const add = (roleid: string, ...sets: readonly (readonly Privilege[])[]) =>
    roles.set(roleid, [...new Set([...(roles.get(roleid) ?? []), ...sets.flat()])].toSorted())
  for (const [category, { admin, user, audit }] of Object.entries(privilegeSets)) {
    add(`PVE${category}Admin`, admin, user, audit)
    // Mappings hand real devices to guests: not part of the general administrator.
    add(
      'PVEAdmin',
      admin.filter((privilege) => privilege !== 'Mapping.Modify'),
      user,
      audit,
    )
    if (user.length > 0) add(`PVE${category}User`, user, audit)
    add('PVEAuditor', audit)
  }
  return roles
}

/** Nothing for a role that does not exist, which then gives no right. */
export function privilegesOfRole(world: World, roleid: string): readonly string[] | undefined {
  return builtInRoles.get(roleid) ?? world.ownRoles.get(roleid)?.privs
}

/** Built-in and own roles, sorted by id. */
export function rolesIn(world: World): Role[] {
  const builtIn = [...builtInRoles].map(([roleid, held]) => ({ roleid, privileges: held, isBuiltIn: true }))
  const own = [...world.ownRoles].map(([roleid, { privs }]) => ({ roleid, privileges: privs, isBuiltIn: false }))
  return [...builtIn, ...own].toSorted((a, b) => (a.roleid < b.roleid ? -1 : 1))
}

/** @throws Fault `missing`: `role 'x' does not exist`. */
export function requireRole(world: World, roleid: string): readonly string[] {
  const held = privilegesOfRole(world, roleid)
  if (!held) throw missing('role', roleid)
  return held
}

export function roleCreation(world: World, roleid: string, privs: readonly string[]): Write[] {
  if (privilegesOfRole(world, roleid)) throw new Fault('conflict', `role '${roleid}' already exists`)
  if (/^pve/i.test(roleid)) {
    throw invalid({ roleid: `cannot use role ID '${roleid}': names beginning with 'PVE' are kept for built-in roles` })
  }
  return [{ put: keyOf.role(roleid), value: { privs: asPrivileges(privs) } }]
}

/** Replaces the privileges, or adds to them with `append`. */
export function roleUpdate(world: World, roleid: string, privs: readonly string[], append: boolean): Write[] {
  refuseBuiltIn(roleid, 'modified')
  const held = requireRole(world, roleid)
  return [{ put: keyOf.role(roleid), value: { privs: asPrivileges(append ? [...held, ...privs] : privs) } }]
}

/** A role leaves together with every ACL entry that gives it: were one left, a later role of that name would take it over. */
export function roleDeletion(world: World, roleid: string): Write[] {
  refuseBuiltIn(roleid, 'deleted')
  requireRole(world, roleid)
  return [{ delete: keyOf.role(roleid) }, ...aclRemovals(world, (entry) => entry.roleid === roleid)]
}

function refuseBuiltIn(roleid: string, verb: string): void {
  if (builtInRoles.has(roleid)) throw new Fault('conflict', `auto-generated role '${roleid}' cannot be ${verb}`)
}
