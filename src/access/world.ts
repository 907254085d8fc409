/**
 * Everything access decides by, read at one point: users, groups, tokens, own roles, ACL.
 *
 * Invariants: `root@pam` exists in every world, stored or not. Every change goes through
 * `AccessState.change`, which writes `access/version` in the same transaction; so one small read tells
 * whether a world is still the present one, and a change decided on an old world is decided again. That is
 * what makes "delete the role" and "grant the role" safe beside one another, in any number of processes.
 * Rejected: a watch that marks the cache stale, because between a change and its news a withdrawn right
 * would still hold.
 */
import { systemClock } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Entry, Guard, Json, Store, Write } from '#store/store.ts'
import { type AclEntry, type AclIndex, indexAcl } from './acl.ts'
import { accessLimits } from './limits.ts'
import { type RealmConfig, type Realms, realmsIn } from './realm-options.ts'

export type User = {
  readonly enable: boolean
  /** Seconds since 1970; 0: never. */
  readonly expire: number
  readonly groups: readonly string[]
  readonly firstname?: string | undefined
  readonly lastname?: string | undefined
  readonly email?: string | undefined
  readonly comment?: string | undefined
  /** Key text of the older second factors; kept for clients that write and read it back. */
  readonly keys?: string | undefined
}

export type Group = { readonly comment?: string | undefined }

export type Token = {
  /** Has its own rights, limited to those of its user. */
  readonly privsep: boolean
  /** Seconds since 1970; 0: as long as the user. */
  readonly expire: number
  readonly comment?: string | undefined
  /** SHA-256 of the secret, in hexadecimal. */
  readonly hash: string
}

export type OwnRole = { readonly privs: readonly string[] }

export interface World {
  /** Store revision of the last change of anything in access; 0 before the first. */
  readonly revision: number
  readonly users: ReadonlyMap<string, User>
  readonly groups: ReadonlyMap<string, Group>
  /** By full id, `user@realm!name`. */
  readonly tokens: ReadonlyMap<string, Token>
  /** Roles made here; the built-in ones are in `role.ts`. */
  readonly ownRoles: ReadonlyMap<string, OwnRole>
  readonly acl: AclIndex
  readonly realms: Realms
  /** Pools a guest or storage belongs to. Whoever changes them writes `access/version` too. */
  readonly poolsOf: PoolsOf
}

/** Names of the pools (`a`, `a/b`) a path (`/vms/100`, `/storage/local`) belongs to. */
export type PoolsOf = (path: string) => readonly string[]

export const root = 'root@pam'

export const keyOf = {
  version: 'access/version',
  user: (userid: string) => `access/users/${userid}`,
  group: (groupid: string) => `access/groups/${groupid}`,
  token: (fullId: string) => `access/tokens/${fullId}`,
  role: (roleid: string) => `access/roles/${roleid}`,
  /** Users, groups, tokens and roles hold no `/`, and the path begins with one: no two entries share a key. */
  acl: ({ type, ugid, roleid, path }: Omit<AclEntry, 'propagate'>) => `access/acl/${type}/${ugid}/${roleid}${path}`,
  /** All of them in one document. */
  realms: 'access/realms',
  realmSecret: (realm: string, name: string) => `access/realm-secrets/${realm}/${name}`,
  tfa: (userid: string) => `access/tfa/${userid}`,
  /** Apart from the user, so that reading users never touches a password's hash. */
  password: (userid: string) => `access/passwords/${userid}`,
} as const

export class AccessState {
  readonly #store: Store
  readonly #readPools: () => Promise<PoolsOf>
  #world: World | undefined
  /** When that was known to be the world. */
  #moment = ''

  constructor(store: Store, readPools: () => Promise<PoolsOf> = async () => () => []) {
    this.#store = store
    this.#readPools = readPools
  }

  /** The world as it is now; the same object for as long as nothing changes. */
  async read(): Promise<World> {
    // Asked for several times in every call, and for every guest of a list: the store is asked only when something has
    // changed somewhere. And each second, in case a process was killed between its change and the mark.
    const moment = `${this.#store.mark.read()} ${Math.floor(systemClock.monotonic() / 1000)}`
    if (this.#world !== undefined && moment === this.#moment) return this.#world
    const revision = await this.#revision()
    if (this.#world?.revision !== revision) this.#world = await this.#load()
    this.#moment = moment
    return this.#world
  }

  /**
   * Applies what `decide` answers for the present world, all or nothing. `decide` may be asked again when
   * somebody else was faster; what it throws is thrown.
   */
  async change(decide: (world: World) => readonly Write[]): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      const world = await this.read()
      const writes = decide(world)
      if (writes.length === 0) return
      try {
        const isPresent: Guard = { key: keyOf.version, revision: world.revision }
        await this.#store.transact([isPresent], [...writes, { put: keyOf.version, value: 1 }])
        return
      } catch (error) {
        if (!isFault(error, 'conflict') || attempt === accessLimits.changeAttempts) throw error
        this.#moment = '' // Somebody has changed something, whatever the mark says.
      }
    }
  }

  async passwordHash(userid: string): Promise<string | undefined> {
    const entry = await this.#store.get<string>(keyOf.password(userid))
    return entry?.value
  }

  async #revision(): Promise<number> {
    return (await this.#store.get(keyOf.version))?.revision ?? 0
  }

  /** Reads between two equal versions, so that no half of a change is seen. */
  async #load(): Promise<World> {
    for (let attempt = 1; attempt <= accessLimits.changeAttempts; attempt += 1) {
      const revision = await this.#revision()
      const [users, groups, tokens, ownRoles, acl, realms, poolsOf] = await Promise.all([
        this.#documents<User>('access/users/'),
        this.#documents<Group>('access/groups/'),
        this.#documents<Token>('access/tokens/'),
        this.#documents<OwnRole>('access/roles/'),
        this.#store.list<AclEntry>('access/acl/'),
        this.#store.get<Record<string, RealmConfig>>(keyOf.realms),
        this.#readPools(),
      ])
      if ((await this.#revision()) !== revision) continue
      if (!users.has(root)) users.set(root, { enable: true, expire: 0, groups: [] })
      const known = { realms: realmsIn(realms?.value ?? {}), acl: indexAcl(acl.map(({ value }) => value)) }
      return { revision, users, groups, tokens, ownRoles, poolsOf, ...known }
    }
    throw new Fault('unavailable', 'users and permissions are being changed too fast to be read')
  }

  async #documents<T extends Json>(prefix: string): Promise<Map<string, T>> {
    const entries: Entry<T>[] = await this.#store.list<T>(prefix)
    return new Map(entries.map(({ key, value }) => [key.slice(prefix.length), value]))
  }
}
