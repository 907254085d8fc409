/**
 * The access control list and its evaluation: pure, no store, no clock.
 *
 * From `/` down to the target, each level may replace what was inherited: the first of token, user, groups
 * that has an applicable entry there (it propagates, or the level is the target) decides the level; several
 * groups at one level are united. `NoAccess` among the resulting roles cancels them all. A pool adds its
 * roles to its members, on the member alone.
 */
export type AclSubject = 'user' | 'group' | 'token'

export type AclEntry = {
  readonly path: string
  readonly type: AclSubject
  /** Id of the user, group or token (`user@realm!name`). */
  readonly ugid: string
  readonly roleid: string
  /** Holds for everything below the path too. */
  readonly propagate: boolean
}

/** Entries by their path, then by `<type>/<ugid>`. */
export type AclIndex = ReadonlyMap<string, ReadonlyMap<string, readonly AclEntry[]>>

/** Role to whether it propagates further down. */
export type Roles = ReadonlyMap<string, boolean>

/** For whom an ACL is read. A token with own rights has a `token` only; all others have a user. */
export type AclReader =
  | { readonly token: string }
  | {
      readonly user: string
      readonly groups: readonly string[]
    }

export const noAccess = 'NoAccess'

export function indexAcl(entries: readonly AclEntry[]): AclIndex {
  const index = new Map<string, Map<string, AclEntry[]>>()
  for (const entry of entries) {
    const level = index.get(entry.path) ?? new Map<string, AclEntry[]>()
    index.set(entry.path, level)
    const subject = `${entry.type}/${entry.ugid}`
    level.set(subject, [...(level.get(subject) ?? []), entry])
  }
  return index
}

export function entriesOf(acl: AclIndex): AclEntry[] {
  return [...acl.values()].flatMap((level) => [...level.values()].flat())
}

/** Roles held on a path. */
export function rolesOn(acl: AclIndex, reader: AclReader, path: string): Roles {
  let roles: Roles = new Map()
  for (const level of levelsOf(path)) {
    roles = rolesAtLevel(acl, reader, level, level === path) ?? roles
  }
  const refused = roles.get(noAccess)
  return refused === undefined ? roles : new Map([[noAccess, refused]])
}

function rolesAtLevel(acl: AclIndex, reader: AclReader, level: string, isTarget: boolean): Roles | undefined {
  const here = acl.get(level)
  if (!here) return undefined
  const applicable = (subjects: readonly string[]): Roles | undefined => {
    const roles = new Map<string, boolean>()
    for (const { roleid, propagate } of subjects.flatMap((subject) => here.get(subject) ?? [])) {
      if (propagate || isTarget) roles.set(roleid, propagate || (roles.get(roleid) ?? false))
    }
    return roles.size > 0 ? roles : undefined
  }
  if ('token' in reader) return applicable([`token/${reader.token}`])
  return applicable([`user/${reader.user}`]) ?? applicable(reader.groups.map((group) => `group/${group}`))
}

/**
 * What membership in pools adds to a member's own roles: nothing where the member says `NoAccess`, all of it
 * refused where a pool says so, else each pool's roles for this member alone.
 */
export function withPoolRoles(own: Roles, pools: readonly Roles[]): Roles {
  if (own.has(noAccess)) return own
  if (pools.some((roles) => roles.has(noAccess))) return new Map([[noAccess, false]])
  const added = pools.flatMap((roles) => [...roles.keys()]).map((roleid) => [roleid, false] as const)
  return new Map([...added, ...own])
}

/** `/vms/100` → `/`, `/vms`, `/vms/100`. */
export function levelsOf(path: string): string[] {
  const parts = path.split('/').filter(Boolean)
  return ['/', ...parts.map((_, index) => `/${parts.slice(0, index + 1).join('/')}`)]
}

/** One leading slash, none doubled, none at the end; nothing for a text that does not begin with one. */
export function normalizePath(text: string): string | undefined {
  if (!text.startsWith('/')) return undefined
  return `/${text.split('/').filter(Boolean).join('/')}`
}

const name = '[A-Za-z0-9._-]+'
const realm = '[A-Za-z][A-Za-z0-9._-]+'
const validPaths: readonly RegExp[] = [
  /^\/$/,
  new RegExp(`^/access(?:/groups(?:/${name})?|/realm(?:/${realm})?)?$`),
  /^\/nodes(?:\/[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)?$/,
  new RegExp(`^/pool(?:/${name}){0,3}$`),
  new RegExp(`^/sdn(?:/(?:controllers|dns|fabrics|ipams|prefix-lists|route-maps)(?:/${name})?)?$`),
  new RegExp(`^/sdn/zones(?:/${name}(?:/${name}(?:/[1-9][0-9]{0,3})?)?)?$`),
  new RegExp(`^/storage(?:/${name})?$`),
  /^\/vms(?:\/[1-9][0-9]{2,8})?$/,
  new RegExp(`^/mapping(?:/[a-z]+(?:/${name})?)?$`),
]

/** Whether rights may be given on a (normalised) path. */
export function isAclPath(path: string): boolean {
  return validPaths.some((pattern) => pattern.test(path))
}
