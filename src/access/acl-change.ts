/** Entries that leave the ACL together with what they name. */
import type { Write } from '#store/store.ts'
import { type AclEntry, entriesOf } from './acl.ts'
import { keyOf, type World } from './world.ts'

/** Writes that remove every entry `isGone` says yes to. */
export function aclRemovals(world: World, isGone: (entry: AclEntry) => boolean): Write[] {
  return entriesOf(world.acl)
    .filter(isGone)
    .map((entry) => ({ delete: keyOf.acl(entry) }))
}
