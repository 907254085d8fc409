/**
 * Which privileges an identity holds where.
 *
 * `root@pam` holds everything everywhere. A token without own rights holds what its user holds; one with
 * own rights holds what both hold. Answers are kept for as long as the world they follow from is the
 * present one; the next world starts with none.
 *
 * Beside the paths of the ACL there is one kind of question: `/access/users/{userid}`, "what may be done to
 * this user". The privileges there are those on `/access/groups` and on each of the user's groups, and of
 * the `Realm.` kind those on the user's realm. Rights cannot be *given* on such a path. What concerns
 * `root@pam` needs `Permissions.Modify` on `/`: who makes a token of root's could otherwise become root.
 */
import { type AclReader, levelsOf, type Roles, rolesOn, withPoolRoles } from './acl.ts'
import { accessLimits } from './limits.ts'
import { privileges } from './privilege.ts'
import { privilegesOfRole } from './role.ts'
import { splitTokenId } from './token.ts'
import { splitUserId } from './user.ts'
import { root, type World } from './world.ts'

/** Privilege to whether it propagates further down. */
export type Privileges = ReadonlyMap<string, boolean>

const none: Privileges = new Map()
const everything: Privileges = new Map(privileges.map((privilege) => [privilege, true]))
const userQuestion = /^\/access\/users\/([^/]+)$/

export class Permissions {
  readonly #world: World
  readonly #answers = new Map<string, Privileges>()

  constructor(world: World) {
    this.#world = world
  }

  /** @param authId `user@realm` or `user@realm!token` */
  on(authId: string, path: string): Privileges {
    const question = `${authId} ${path}`
    const known = this.#answers.get(question)
    if (known) return known
    const answer = this.#evaluate(authId, path)
    if (this.#answers.size >= accessLimits.cachedAnswers) this.#answers.clear()
    this.#answers.set(question, answer)
    return answer
  }

  #evaluate(authId: string, path: string): Privileges {
    if (authId === root) return everything
    const aboutUser = userQuestion.exec(path)?.[1]
    if (aboutUser !== undefined) return this.#overUser(authId, aboutUser)
    const parts = splitTokenId(authId)
    const token = this.#world.tokens.get(authId)
    if (parts && token) {
      const ofUser = this.on(parts.userid, path)
      return token.privsep ? intersection(this.#ofReader({ token: authId }, path), ofUser) : ofUser
    }
    const user = this.#world.users.get(authId)
    return user ? this.#ofReader({ user: authId, groups: user.groups }, path) : none
  }

  #ofReader(reader: AclReader, path: string): Privileges {
    const own = rolesOn(this.#world.acl, reader, path)
    const pools = this.#world.poolsOf(path).map((pool) => rolesOn(this.#world.acl, reader, `/pool/${pool}`))
    return this.#privilegesOf(withPoolRoles(own, pools))
  }

  #privilegesOf(roles: Roles): Privileges {
    const held = new Map<string, boolean>()
    for (const [roleid, propagates] of roles) {
      for (const privilege of privilegesOfRole(this.#world, roleid) ?? []) {
        held.set(privilege, propagates || (held.get(privilege) ?? false))
      }
    }
    return held
  }

  #overUser(authId: string, userid: string): Privileges {
    const groups = this.#world.users.get(userid)?.groups ?? []
    const paths = ['/access/groups', ...groups.map((group) => `/access/groups/${group}`)]
    const ofGroups = paths.flatMap((path) => [...this.on(authId, path)])
    const ofRealm = this.on(authId, `/access/realm/${splitUserId(userid)?.realm ?? ''}`)
    const held = new Map([
      ...ofGroups.filter(([privilege]) => !privilege.startsWith('Realm.')),
      ...[...ofRealm].filter(([privilege]) => privilege.startsWith('Realm.')),
    ])
    const mayTouch = userid !== root || this.on(authId, '/').has('Permissions.Modify')
    return mayTouch ? held : new Map([...held].filter(([privilege]) => privilege === 'Sys.Audit'))
  }

  /** Every path on which the identity holds anything: the main branches, and each path of the ACL. */
  everywhere(authId: string): ReadonlyMap<string, Privileges> {
    const paths = [...new Set([...branches, ...this.#world.acl.keys()])].toSorted()
    return new Map(paths.map((path) => [path, this.on(authId, path)] as const).filter(([, held]) => held.size > 0))
  }

  /** The `cap` object of a login: what a user interface may offer at all, by area. */
  capabilities(authId: string): Record<string, Record<string, 1>> {
    const areas = Object.fromEntries(Object.keys(areaOf).map((area): [string, Record<string, 1>] => [area, {}]))
    for (const [path, held] of this.everywhere(authId)) {
      for (const privilege of held.keys()) {
        for (const area of areasFor(path, privilege)) (areas[area] ??= {})[privilege] = 1
      }
    }
    return areas
  }
}

const branches = ['/', '/access', '/access/groups', '/mapping', '/nodes', '/pool', '/sdn', '/storage', '/vms']

const areaOf: Readonly<Record<string, RegExp>> = {
  vms: /^(?:VM\.|Permissions\.Modify$)/,
  access: /^(?:User\.|Group\.|Permissions\.Modify$)/,
  storage: /^(?:Datastore\.|Permissions\.Modify$)/,
  nodes: /^(?:Sys\.|Permissions\.Modify$)/,
  sdn: /^(?:SDN\.|Permissions\.Modify$)/,
  dc: /^(?:Sys\.Audit$|Sys\.Modify$|SDN\.)/,
  mapping: /^(?:Mapping\.|Permissions\.Modify$)/,
}

/** A right on a pool shows in the areas of its members; one on `/` in `dc`, as it also holds in each branch. */
function areasFor(path: string, privilege: string): string[] {
  const branch = levelsOf(path)[1]?.slice(1) ?? 'dc'
  const candidates = branch === 'pool' ? ['vms', 'storage'] : [branch]
  return candidates.filter((area) => areaOf[area]?.test(privilege) ?? false)
}

function intersection(own: Privileges, ofUser: Privileges): Privileges {
  const both = [...own].filter(([privilege]) => ofUser.has(privilege))
  return new Map(both.map(([privilege, propagates]) => [privilege, propagates && ofUser.get(privilege) === true]))
}
