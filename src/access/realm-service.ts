/**
 * Realms: where users come from. Their secrets lie apart from what is told of them.
 *
 * Reads and writes the same state as the access service, and needs neither keys nor passwords: a task that
 * synchronizes a realm has one of its own.
 */
import type { Store } from '#store/store.ts'
import {
  realmCreation,
  realmDeletion,
  realmDigest,
  type RealmChange,
  realmUpdate,
  requireRealmConfig,
  tfaOf,
} from './realm-config.ts'
import type { RealmConfig, RealmType, RealmValues } from './realm-options.ts'
import { type SyncWish, syncOptions, syncPlan } from './realm-sync.ts'
import { readDirectory, tryDirectory } from './realms/directory.ts'
import { type AccessState, keyOf } from './world.ts'

export interface RealmItem {
  readonly realm: string
  readonly type: string
  readonly comment?: string
  readonly default?: boolean
  readonly tfa?: 'oath'
}

export interface SyncReport {
  readonly lines: readonly string[]
  readonly warnings: readonly string[]
}

export class RealmService {
  readonly #state: AccessState
  readonly #store: Store

  constructor({ store, accessState }: { readonly store: Store; readonly accessState: AccessState }) {
    this.#state = accessState
    this.#store = store
  }

  /** What anybody may know before logging in. */
  async list(): Promise<RealmItem[]> {
    const { realms } = await this.#state.read()
    return [...realms].map(([realm, config]) => {
      const { comment, default: isDefault } = config.options
      const tfa = tfaOf(config)
      return {
        realm,
        type: config.type,
        ...(typeof comment === 'string' ? { comment } : {}),
        ...(isDefault === true ? { default: true } : {}),
        ...(tfa ? { tfa } : {}),
      }
    })
  }

  /** Without its secrets. @throws Fault `missing` */
  async get(realm: string): Promise<RealmConfig & { readonly digest: string }> {
    const config = requireRealmConfig((await this.#state.read()).realms, realm)
    return { ...config, digest: realmDigest(config) }
  }

  async password(realm: string): Promise<string | undefined> {
    return (await this.#store.get<string>(keyOf.realmSecret(realm, 'password')))?.value
  }

  async create(realm: string, type: RealmType, given: RealmValues): Promise<void> {
    await this.#tryIfAsked({ type, options: given }, given)
    await this.#state.change((world) => realmCreation(world, realm, type, given))
  }

  async update(realm: string, change: RealmChange): Promise<void> {
    const { type, options } = await this.get(realm)
    const password = change.set.password ?? (await this.password(realm))
    await this.#tryIfAsked({ type, options: { ...options, ...change.set } }, { ...change.set, password })
    await this.#state.change((world) => realmUpdate(world, realm, change))
  }

  async delete(realm: string): Promise<void> {
    await this.#state.change((world) => realmDeletion(world, realm))
  }

  /**
   * Makes users and groups what the directory says, at once.
   * @param isDry only says what would be done
   */
  async sync(
    realm: string,
    { wish, isDry, signal }: { wish: SyncWish; isDry: boolean; signal: AbortSignal },
  ): Promise<SyncReport> {
    const config = await this.get(realm)
    const options = syncOptions(wish, config.options['sync-defaults-options'])
    const password = await this.password(realm)
    const found = await readDirectory(config, { password, withGroups: options.groups, signal })
    if (isDry) return syncPlan(await this.#state.read(), realm, found, options)
    let report: SyncReport = { lines: [], warnings: [] }
    await this.#state.change((world) => {
      // Deleted meanwhile, it has no users to make.
      requireRealmConfig(world.realms, realm)
      const { writes, ...said } = syncPlan(world, realm, found, options)
      report = said
      return writes
    })
    return report
  }

  async #tryIfAsked(config: RealmConfig, { 'check-connection': isAsked, password }: RealmValues): Promise<void> {
    if (isAsked !== true) return
    await tryDirectory(config, typeof password === 'string' ? password : undefined)
  }
}
