/** The permissions given on one path, for whoever removes what the path names: were one left, the next of that name would inherit it. */
import { type AclEntry, entriesOf } from './acl.ts'
import { aclRemovals } from './acl-change.ts'
import { privilegesOfRole } from './role.ts'
import { type AccessState, keyOf, type World } from './world.ts'

export class PathRights {
  readonly #state: AccessState

  constructor({ accessState }: { readonly accessState: AccessState }) {
    this.#state = accessState
  }

  /** Entries on exactly this path. */
  async on(path: string): Promise<AclEntry[]> {
    return entriesOf((await this.#state.read()).acl).filter((entry) => entry.path === path)
  }

  async forget(path: string): Promise<void> {
    await this.#state.change((world) => aclRemovals(world, (entry) => entry.path === path))
  }

  /** Gives back what was forgotten, to those who are still there. */
  async restore(entries: readonly AclEntry[]): Promise<void> {
    await this.#state.change((world) =>
      entries.filter((entry) => isThere(world, entry)).map((entry) => ({ put: keyOf.acl(entry), value: entry })),
    )
  }
}

function isThere(world: World, { type, ugid, roleid }: AclEntry): boolean {
  const known = { user: world.users, group: world.groups, token: world.tokens }[type]
  return known.has(ugid) && privilegesOfRole(world, roleid) !== undefined
}
