/**
 * Makes users and groups of a realm what its directory says: from the present world and what was found to writes, all
 * of which happen at once or none.
 *
 * A group of the directory is called `<group>-<realm>` here, so that it never becomes one that somebody made by hand.
 * What vanished from the directory stays unless removal is asked for, by kind: entries, the permissions they had, the
 * properties of users that are left. A directory that names nobody at all removes nobody: a wrong filter looks the same.
 */
import { Fault, invalid } from '#base/fault.ts'
import { parsePropertyString } from '#base/schema/property-string.ts'
import { boolean, enumOf, optional, type PropertyFormat, string } from '#base/schema/schema.ts'
import type { Write } from '#store/store.ts'
import { aclRemovals } from './acl-change.ts'
import { syncScopes } from './realm-options.ts'
import type { Found, FoundGroup, FoundUser } from './realms/directory.ts'
import { isUserId, splitUserId, tokensOf, userRemoval } from './user.ts'
import { type Group, keyOf, type User, type World } from './world.ts'

export interface SyncWish {
  readonly scope?: string | undefined
  readonly 'enable-new'?: boolean | undefined
  /** `acl;properties;entry` or `none`. */
  readonly 'remove-vanished'?: string | undefined
  /** Older spellings: `entry;properties`, and `acl`. */
  readonly full?: boolean | undefined
  readonly purge?: boolean | undefined
}

export interface SyncOptions {
  readonly users: boolean
  readonly groups: boolean
  readonly enablesNew: boolean
  readonly removes: { readonly acl: boolean; readonly properties: boolean; readonly entry: boolean }
}

export interface SyncPlan {
  readonly writes: Write[]
  readonly lines: string[]
  readonly warnings: string[]
}

const defaultsFormat: PropertyFormat = {
  scope: { schema: optional(enumOf(syncScopes)), isDefaultKey: true },
  'remove-vanished': { schema: optional(string()) },
  'enable-new': { schema: optional(boolean()) },
  full: { schema: optional(boolean()) },
  purge: { schema: optional(boolean()) },
}

/** What is asked for, over what the realm says. @throws Fault `invalid` when nobody says what to synchronize */
export function syncOptions(wish: SyncWish, defaults: unknown): SyncOptions {
  const parsed = parsePropertyString(defaultsFormat, typeof defaults === 'string' ? defaults : '')
  const standard: SyncWish = parsed.ok ? parsed.values : {}
  const scope = wish.scope ?? standard.scope
  if (scope === undefined) {
    throw invalid({ scope: "property is missing, and 'sync-defaults-options' of the realm does not say it either" })
  }
  const vanished = vanishedOf(wish) ?? vanishedOf(standard) ?? []
  return {
    users: scope !== 'groups',
    groups: scope !== 'users',
    enablesNew: wish['enable-new'] ?? standard['enable-new'] ?? true,
    removes: {
      acl: vanished.includes('acl'),
      properties: vanished.includes('properties'),
      entry: vanished.includes('entry'),
    },
  }
}

function vanishedOf({ 'remove-vanished': text, full, purge }: SyncWish): string[] | undefined {
  if (text !== undefined) return text.split(';')
  if (full === undefined && purge === undefined) return undefined
  return [...(full === true ? ['entry', 'properties'] : []), ...(purge === true ? ['acl'] : [])]
}

export function syncPlan(world: World, realm: string, found: Found, options: SyncOptions): SyncPlan {
  const plan = new Plan(world, realm, options)
  if (options.users) plan.takeUsers(found.users)
  if (options.groups) plan.takeGroups(found.groups)
  return { writes: plan.writes(), lines: plan.lines, warnings: plan.warnings }
}

class Plan {
  readonly #world: World
  readonly #realm: string
  readonly #options: SyncOptions
  readonly #users: Map<string, User>
  readonly #groups: Map<string, Group>
  /** `user/<id>`, `token/<id>`, `group/<id>` whose permissions go. */
  readonly #powerless = new Set<string>()
  readonly lines: string[] = []
  readonly warnings: string[] = []

  constructor(world: World, realm: string, options: SyncOptions) {
    this.#world = world
    this.#realm = realm
    this.#options = options
    this.#users = new Map(world.users)
    this.#groups = new Map(world.groups)
  }

  takeUsers(found: readonly FoundUser[]): void {
    const here = new Set<string>()
    for (const { name, ...facts } of found) {
      const userid = `${name}@${this.#realm}`
      if (!isUserId(userid)) {
        this.warnings.push(`${JSON.stringify(name)} cannot be the name of a user here`)
        continue
      }
      here.add(userid)
      this.#takeUser(userid, facts)
    }
    const vanished = [...this.#users.keys()].filter(
      (userid) => splitUserId(userid)?.realm === this.#realm && !here.has(userid),
    )
    this.#requireSomebody(here.size, vanished.length, 'user')
    for (const userid of vanished) this.#letGo('user', userid, this.#users)
  }

  #takeUser(userid: string, facts: Omit<FoundUser, 'name'>): void {
    const before = this.#users.get(userid)
    if (!before) {
      this.lines.push(`user '${userid}': new`)
      this.#users.set(userid, { enable: this.#options.enablesNew, expire: 0, groups: [], ...facts })
      return
    }
    const { enable, expire, groups } = before
    const after: User = { ...(this.#options.removes.properties ? { enable, expire, groups } : before), ...facts }
    if (isSame(before, after)) return
    this.lines.push(`user '${userid}': changed`)
    this.#users.set(userid, after)
  }

  takeGroups(found: readonly FoundGroup[]): void {
    const here = new Map<string, ReadonlySet<string>>()
    for (const { name, members } of found) {
      const groupid = `${name}-${this.#realm}`
      if (!/^[A-Za-z0-9._-]{1,64}$/.test(groupid)) {
        this.warnings.push(`${JSON.stringify(name)} cannot be the name of a group here`)
        continue
      }
      here.set(groupid, new Set(members.map((member) => `${member}@${this.#realm}`)))
      if (this.#groups.has(groupid)) continue
      this.lines.push(`group '${groupid}': new`)
      this.#groups.set(groupid, {})
    }
    const vanished = [...this.#groups.keys()].filter((id) => this.#realmOf(id) === this.#realm && !here.has(id))
    this.#requireSomebody(here.size, vanished.length, 'group')
    for (const groupid of vanished) this.#letGo('group', groupid, this.#groups)
    this.#fill(here)
  }

  /** Of realms `a` and `b-a` a group `staff-b-a` is the longer one's. */
  #realmOf(groupid: string): string | undefined {
    const ends = [...this.#world.realms.keys()].filter((realm) => groupid.endsWith(`-${realm}`))
    return ends.toSorted((a, b) => b.length - a.length)[0]
  }

  /** Members from this realm are those the directory names; others were put in by hand and stay. */
  #fill(members: ReadonlyMap<string, ReadonlySet<string>>): void {
    for (const [userid, user] of this.#users) {
      const isOurs = splitUserId(userid)?.realm === this.#realm
      const kept = user.groups.filter((id) => this.#groups.has(id) && !(isOurs && members.has(id)))
      const given = isOurs ? [...members].filter(([, ids]) => ids.has(userid)).map(([id]) => id) : []
      const groups = [...new Set([...kept, ...given])].toSorted()
      if (isSame(groups, user.groups)) continue
      this.lines.push(`user '${userid}': groups ${groups.join(', ') || '(none)'}`)
      this.#users.set(userid, { ...user, groups })
    }
  }

  #letGo(type: 'user' | 'group', id: string, entries: Map<string, unknown>): void {
    const { acl, entry } = this.#options.removes
    if (acl) {
      this.#powerless.add(`${type}/${id}`)
      if (type === 'user') for (const token of tokensOf(this.#world, id)) this.#powerless.add(`token/${token}`)
    }
    if (entry) entries.delete(id)
    const acts = [...(entry ? ['removed'] : []), ...(acl ? ['permissions removed'] : [])]
    if (acts.length > 0) this.lines.push(`${type} '${id}': vanished, ${acts.join(', ')}`)
  }

  #requireSomebody(here: number, vanished: number, noun: string): void {
    const { acl, entry } = this.#options.removes
    if (here > 0 || vanished === 0 || !(acl || entry)) return
    throw new Fault('conflict', `the directory names no ${noun} at all, and ${vanished} would be removed`, {
      remedy: 'Look at the base and the filter of the realm, or synchronize without remove-vanished.',
    })
  }

  writes(): Write[] {
    const { users, groups } = this.#world
    return [
      ...[...this.#users].flatMap(([id, user]) =>
        users.get(id) === user ? [] : [{ put: keyOf.user(id), value: user }],
      ),
      ...[...users.keys()].flatMap((id) => (this.#users.has(id) ? [] : userRemoval(this.#world, id))),
      ...[...this.#groups].flatMap(([id, group]) =>
        groups.get(id) === group ? [] : [{ put: keyOf.group(id), value: group }],
      ),
      ...[...groups.keys()].flatMap((id) => (this.#groups.has(id) ? [] : [{ delete: keyOf.group(id) }])),
      ...aclRemovals(this.#world, ({ type, ugid }) => this.#powerless.has(`${type}/${ugid}`)),
    ]
  }
}

function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(sorted(a)) === JSON.stringify(sorted(b))
}

function sorted(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, one]) => one !== undefined)
      .toSorted(([a], [b]) => (a < b ? -1 : 1)),
  )
}
