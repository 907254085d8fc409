/** Groups of users: something to give roles to. Membership is kept with the user. */
import { Fault, missing } from '#base/fault.ts'
import type { Write } from '#store/store.ts'
import { aclRemovals } from './acl-change.ts'
import { type Group, keyOf, type World } from './world.ts'

/** @throws Fault `missing`: `group 'x' does not exist`. */
export function requireGroup(world: World, groupid: string): Group {
  const group = world.groups.get(groupid)
  if (!group) throw missing('group', groupid)
  return group
}

/** User ids, sorted. */
export function membersOf(world: World, groupid: string): string[] {
  return [...world.users]
    .filter(([, { groups }]) => groups.includes(groupid))
    .map(([userid]) => userid)
    .toSorted()
}

export function groupCreation(world: World, groupid: string, comment: string | undefined): Write[] {
  if (world.groups.has(groupid)) throw new Fault('conflict', `group '${groupid}' already exists`)
  return [{ put: keyOf.group(groupid), value: { comment } }]
}

export function groupUpdate(world: World, groupid: string, comment: string | undefined): Write[] {
  const group = requireGroup(world, groupid)
  return comment === undefined ? [] : [{ put: keyOf.group(groupid), value: { ...group, comment } }]
}

/** A group leaves with its memberships and ACL entries. */
export function groupDeletion(world: World, groupid: string): Write[] {
  requireGroup(world, groupid)
  const members = [...world.users].filter(([, { groups }]) => groups.includes(groupid))
  return [
    { delete: keyOf.group(groupid) },
    ...members.map(([userid, user]) => ({
      put: keyOf.user(userid),
      value: { ...user, groups: user.groups.filter((other) => other !== groupid) },
    })),
    ...aclRemovals(world, ({ type, ugid }) => type === 'group' && ugid === groupid),
  ]
}
