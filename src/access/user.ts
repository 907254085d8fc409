/**
 * Users: who may log in. A user belongs to the realm in the name and to groups.
 *
 * All changes are functions from the present world to writes; `AccessState.change` makes them true at once.
 * `root@pam` cannot be deleted.
 */
import { Fault, invalid, missing } from '#base/fault.ts'
import type { Write } from '#store/store.ts'
import { aclRemovals } from './acl-change.ts'
import { keyOf, root, type User, type World } from './world.ts'

/** What may be said about a user; absent means "as it is" on update. */
export interface UserFacts {
  readonly enable?: boolean | undefined
  readonly expire?: number | undefined
  readonly groups?: readonly string[] | undefined
  readonly firstname?: string | undefined
  readonly lastname?: string | undefined
  readonly email?: string | undefined
  readonly comment?: string | undefined
  readonly keys?: string | undefined
}

/** `bob@pve` → `bob` and `pve`; the last `@` divides. Nothing when there is none. */
export function splitUserId(userid: string): { name: string; realm: string } | undefined {
  const at = userid.lastIndexOf('@')
  return at > 0 ? { name: userid.slice(0, at), realm: userid.slice(at + 1) } : undefined
}

/** `name@realm` of 3 to 64 printable characters, without white space, `:` and `/`. */
export function isUserId(text: string): boolean {
  return text.length <= 64 && text.isWellFormed() && /^[^\s:/\p{Cc}]+@[A-Za-z][A-Za-z0-9._-]+$/u.test(text)
}

/** @throws Fault `missing`: `no such user ('bob@pve')`, the text Terraform's provider knows. */
export function requireUser(world: World, userid: string): User {
  const user = world.users.get(userid)
  if (!user) throw new Fault('missing', `no such user ('${userid}')`)
  return user
}

/** Why this user may not act now, or nothing. */
export function whyUnusable(world: World, userid: string, nowSeconds: number): string | undefined {
  const user = world.users.get(userid)
  if (!user) return `no such user ('${userid}')`
  const realm = splitUserId(userid)?.realm ?? ''
  if (!world.realms.has(realm)) return `realm '${realm}' does not exist`
  if (!user.enable) return `user '${userid}' is disabled`
  if (user.expire !== 0 && user.expire <= nowSeconds) return `user '${userid}' access expired`
  return undefined
}

/** @param passwordHash stored with the user, in the same act */
export function userCreation(world: World, userid: string, facts: UserFacts, passwordHash?: string): Write[] {
  requireRealm(world, userid)
  if (!isUserId(userid)) {
    throw invalid({ userid: `invalid format - value '${userid}' does not look like a valid user name` })
  }
  if (world.users.has(userid)) throw new Fault('conflict', `user '${userid}' already exists`)
  return userWrites(world, userid, { enable: true, expire: 0, groups: [] }, facts, passwordHash)
}

/** @param appendGroups adds to the groups instead of replacing them */
export function userUpdate(world: World, userid: string, facts: UserFacts, appendGroups = false): Write[] {
  const user = requireUser(world, userid)
  const groups = facts.groups && (appendGroups ? [...user.groups, ...facts.groups] : facts.groups)
  return userWrites(world, userid, user, { ...facts, groups })
}

export function passwordChange(world: World, userid: string, passwordHash: string): Write[] {
  requireUser(world, userid)
  return [{ put: keyOf.password(userid), value: passwordHash }]
}

/** A user leaves with tokens, password, second factors and ACL entries: were one left, a later user of that name would take it over. */
export function userDeletion(world: World, userid: string): Write[] {
  requireUser(world, userid)
  if (userid === root) throw new Fault('conflict', `user '${root}' cannot be deleted`)
  const tokens = tokensOf(world, userid)
  const isGone = new Set([`user/${userid}`, ...tokens.map((token) => `token/${token}`)])
  return [...userRemoval(world, userid), ...aclRemovals(world, ({ type, ugid }) => isGone.has(`${type}/${ugid}`))]
}

/** The user and all that proves to be the user; what was given to the user stays. */
export function userRemoval(world: World, userid: string): Write[] {
  return [
    { delete: keyOf.user(userid) },
    { delete: keyOf.password(userid) },
    { delete: keyOf.tfa(userid) },
    ...tokensOf(world, userid).map((token) => ({ delete: keyOf.token(token) })),
  ]
}

/** Full ids of a user's tokens, sorted. A user's name may hold `!`, so the last one divides. */
export function tokensOf(world: World, userid: string): string[] {
  const isOwn = (fullId: string) => fullId.slice(0, fullId.lastIndexOf('!')) === userid
  return [...world.tokens.keys()].filter(isOwn).toSorted()
}

/** @throws Fault `invalid` with `realm 'x' does not exist` for a user of an unknown realm. */
export function requireRealm(world: World, userid: string): void {
  const realm = splitUserId(userid)?.realm ?? ''
  if (world.realms.has(realm)) return
  throw invalid({ userid: `realm '${realm}' does not exist; there are ${[...world.realms.keys()].join(', ')}` })
}

function userWrites(world: World, userid: string, before: User, facts: UserFacts, passwordHash?: string): Write[] {
  const given = Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined))
  const groups = [...new Set(facts.groups ?? before.groups)].toSorted()
  for (const group of groups) if (!world.groups.has(group)) throw missing('group', group)
  const user: User = { ...before, ...given, groups }
  const writes: Write[] = [{ put: keyOf.user(userid), value: user }]
  return passwordHash === undefined ? writes : [...writes, { put: keyOf.password(userid), value: passwordHash }]
}
