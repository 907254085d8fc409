/**
 * The half of the storage service that is about places: which storages there are, whether they can be used, and how
 * much room is left. What lies in them is the other half.
 */
import type { Clock } from '#base/clock.ts'
import type { DatastoreAt, RemoteDatastore } from '#base/datastore-at.ts'
import { invalid, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import type { Host } from '#host/host.ts'
import { makeDirectory } from '#host/files.ts'
import type { Settings } from '#settings.ts'
import type { Store } from '#store/store.ts'
import type { StorageConfig, StorageInput } from './config.ts'
import { localName, localStorage } from './local.ts'
import { StorageOpener } from './opener.ts'
import type { Space, StorageDriver, StorageFeatures } from './plugin.ts'
import { pluginOf } from './plugins/all.ts'
import { type StorageChange, StorageRegistry } from './registry.ts'
import type { ContentType } from './volume.ts'

export interface StorageStatus {
  /** Can be used now. */
  readonly active: boolean
  /** Configured for this node and not disabled. */
  readonly enabled: boolean
  readonly totalBytes: number
  readonly usedBytes: number
  readonly availableBytes: number
}

export interface StorageNeeds {
  readonly settings: Pick<Settings, 'node' | 'stateDir'>
  readonly store: Store
  readonly host: Host
  readonly clock: Clock
  readonly log: Log
  /** Who knows the ways to datastores elsewhere; without it storages that are elsewhere cannot be used. */
  readonly elsewhere?: {
    /** Zeros where nobody can tell; what was found a moment ago is told again. @throws Fault when it cannot be used */
    readonly spaceAt: (at: RemoteDatastore) => Promise<Space>
    /** Looks now. @throws Fault when it cannot be used */
    readonly requireUsable: (at: RemoteDatastore) => Promise<void>
  }
}

export class ConfiguredStorages {
  protected readonly needs: StorageNeeds
  protected readonly opener: StorageOpener
  readonly #registry: StorageRegistry

  constructor(needs: StorageNeeds) {
    this.needs = needs
    this.#registry = new StorageRegistry(needs)
    this.opener = new StorageOpener(needs, this.#registry)
  }

  /** Every configured storage, also disabled ones and those of other nodes, sorted by name. */
  list(): Promise<StorageConfig[]> {
    return this.#registry.list()
  }

  /** @throws Fault `missing` */
  get(name: string): Promise<StorageConfig> {
    return this.#registry.get(name)
  }

  /** Makes a storage known and its place ready. @throws Fault `invalid`, `conflict`, `unavailable` */
  create(input: StorageInput): Promise<StorageConfig> {
    return this.#registry.create(input, async (config, secrets) => {
      // Opened in any case: options that do not go together are found there.
      const driver = this.opener.driverOf(config)
      const remote = driver.remote?.(secrets)
      if (this.opener.isEnabledHere(config)) await this.#prepare(driver, remote)
    })
  }

  /** A storage that is away can be changed; one that becomes enabled must be there. */
  update(name: string, change: StorageChange): Promise<StorageConfig> {
    return this.#registry.update(name, change, async (before, after, secrets) => {
      const driver = this.opener.driverOf(after)
      const remote = driver.remote?.(secrets)
      if (this.opener.isEnabledHere(after) && !this.opener.isEnabledHere(before)) await this.#prepare(driver, remote)
    })
  }

  async #prepare(driver: StorageDriver, remote: RemoteDatastore | undefined): Promise<void> {
    await driver.prepare()
    if (remote) await this.needs.elsewhere?.requireUsable(remote)
  }

  /** Forgets the storage; its volumes stay where they are. `local` is then again what a new node has. */
  async delete(name: string): Promise<void> {
    if (name !== localName) return this.#registry.delete(name)
    await this.#registry.reset(await this.#placeOfLocal(), (config) => this.opener.driverOf(config).prepare())
  }

  /** Gives a new node its `local`. */
  async ensureLocal(): Promise<void> {
    if ((await this.list()).some(({ name }) => name === localName)) return
    await this.create(await this.#placeOfLocal())
  }

  async #placeOfLocal(): Promise<StorageInput> {
    const local = localStorage(this.needs.settings)
    await makeDirectory(local.path)
    return local
  }

  featuresOf(config: StorageConfig): StorageFeatures {
    const { features } = pluginOf(config.type)
    const wished = features.formats.find((one) => one === config.options['format'])
    // The preferred one comes first, and is what its owner says.
    return wished ? { ...features, formats: [...new Set([wished, ...features.formats])] } : features
  }

  /** Never fails because a storage does: one that cannot be used is `active: false`. @throws Fault `missing` */
  async status(name: string): Promise<StorageStatus> {
    const config = await this.get(name)
    const nothing = { totalBytes: 0, usedBytes: 0, availableBytes: 0 }
    if (!this.opener.isEnabledHere(config)) return { active: false, enabled: false, ...nothing }
    const driver = this.opener.driverOf(config)
    try {
      await driver.requireActive()
      const remote = driver.remote?.(await this.#registry.secretsOf(name))
      const space = remote ? this.needs.elsewhere?.spaceAt(remote) : driver.space()
      return { active: true, enabled: true, ...((await space) ?? nothing) }
    } catch (error) {
      this.needs.log.warn(`storage '${name}' cannot be used`, { error })
      return { active: false, enabled: true, ...nothing }
    }
  }

  /** Equal for two storages that are the same place. @throws Fault `unavailable` */
  async identity(name: string): Promise<{ readonly id: string; readonly type: string }> {
    const { config, driver } = await this.opener.open(name)
    const place = await driver.identity()
    return { id: config.isShared ? place : `${this.needs.settings.node}:${place}`, type: config.type }
  }

  /**
   * Room must be there before anything is written.
   * @param what for the message, as `a disk of VM 100`
   * @throws Fault `exhausted`
   */
  async requireSpace(name: string, bytes: number, what: string): Promise<void> {
    await (await this.opener.open(name)).requireRoom(bytes, what)
  }

  /** @throws Fault `invalid` when the storage is not configured to hold that; `unavailable` */
  async requireContent(name: string, content: ContentType): Promise<void> {
    ;(await this.opener.open(name)).requireContent(content)
  }

  /** Where the backups of this storage are. */
  async datastorePath(name: string): Promise<DatastoreAt> {
    const open = await this.opener.open(name)
    open.requireContent('backup')
    if (open.driver.remote) return open.driver.remote(await this.#registry.secretsOf(name))
    if (!open.driver.datastore) throw invalid({ storage: `storage '${name}' cannot hold a datastore` })
    return open.driver.datastore()
  }

  /** Removes what killed processes left on every storage of this node; returns how many things. */
  async sweep(): Promise<number> {
    let count = 0
    for (const config of await this.list()) {
      if (!this.opener.isEnabledHere(config)) continue
      const driver = this.opener.driverOf(config)
      try {
        await driver.requireActive()
        count += (await driver.sweep()).length
      } catch (error) {
        if (!isFault(error, 'unavailable')) throw error
        this.needs.log.warn(`storage '${config.name}' is not swept`, { error })
      }
    }
    return count
  }
}
