/**
 * Which storages are configured: documents `storage/<name>` in the store.
 *
 * Who may run beside whom: any number of changers; each compares and puts, so of two who change the same
 * storage at once the second is told and nothing is lost.
 */
import { Fault, invalid, missing } from '#base/fault.ts'
import type { Store } from '#store/store.ts'
import {
  asDocument,
  checkStorage,
  configOf,
  type StorageConfig,
  type StorageDocument,
  type StorageInput,
} from './config.ts'

const PREFIX = 'storage/'

export interface StorageChange {
  /** New values of options, in the wire's spelling. */
  readonly set?: Readonly<Record<string, unknown>>
  /** Options to return to their default. */
  readonly remove?: readonly string[]
  /** Refuse when the configuration is no longer this one. */
  readonly digest?: string | undefined
}

export class StorageRegistry {
  readonly #store: Store

  constructor(needs: { readonly store: Store }) {
    this.#store = needs.store
  }

  /** Sorted by name. */
  async list(): Promise<StorageConfig[]> {
    return (await this.#store.list(PREFIX)).map(({ value }) => configOf(asDocument(value)))
  }

  /** @throws Fault `missing` */
  async get(name: string): Promise<StorageConfig> {
    return configOf((await this.#read(name)).document)
  }

  /**
   * @param prepare makes the place ready; runs before the storage is visible to anybody
   * @throws Fault `invalid` naming each wrong field, `conflict` when the name or the path is taken
   */
  async create(input: StorageInput, prepare: (config: StorageConfig) => Promise<void>): Promise<StorageConfig> {
    const document = checkStorage(input)
    const config = configOf(document)
    if ((await this.#store.get(PREFIX + config.name)) !== undefined) throw taken(config.name)
    const neighbour = (await this.list()).find(({ options }) => options['path'] === config.options['path'])
    if (neighbour && config.options['path'] !== undefined) {
      throw invalid({ path: `'${config.options['path']}' is the path of storage '${neighbour.name}' already` })
    }
    await prepare(config)
    await this.#put(config.name, document, 0, taken(config.name))
    return config
  }

  /**
   * @param prepare runs before the change is visible, with the configuration before and after
   * @throws Fault `missing`, `invalid`, `conflict` when it was changed meanwhile or `digest` is another
   */
  async update(
    name: string,
    change: StorageChange,
    prepare: (before: StorageConfig, after: StorageConfig) => Promise<void>,
  ): Promise<StorageConfig> {
    const { document, revision } = await this.#read(name)
    const before = configOf(document)
    if (change.digest !== undefined && change.digest !== before.digest) throw changedMeanwhile()
    const kept = Object.entries(document).filter(([key]) => !change.remove?.includes(key))
    const input = { ...Object.fromEntries(kept), ...change.set }
    const next = checkStorage({ ...input, storage: name, type: String(document['type']) })
    const after = configOf(next)
    await prepare(before, after)
    await this.#put(name, next, revision, changedMeanwhile())
    return after
  }

  /**
   * Puts a storage back to what is given, whatever it was.
   * @throws Fault `missing`, `conflict` when it was changed meanwhile
   */
  async reset(input: StorageInput, prepare: (config: StorageConfig) => Promise<void>): Promise<void> {
    const { revision } = await this.#read(input.storage)
    const document = checkStorage(input)
    await prepare(configOf(document))
    await this.#put(input.storage, document, revision, changedMeanwhile())
  }

  /** Forgets the storage; its volumes stay where they are. @throws Fault `missing` */
  async delete(name: string): Promise<void> {
    const { revision } = await this.#read(name)
    await this.#store.transact([{ key: PREFIX + name, revision }], [{ delete: PREFIX + name }])
  }

  async #read(name: string): Promise<{ document: StorageDocument; revision: number }> {
    const entry = await this.#store.get(PREFIX + name)
    if (!entry) throw missing('storage', name)
    return { document: asDocument(entry.value), revision: entry.revision }
  }

  async #put(name: string, document: StorageDocument, revision: number, otherwise: Fault): Promise<void> {
    const key = PREFIX + name
    try {
      await this.#store.transact([{ key, revision }], [{ put: key, value: document }])
    } catch (cause) {
      throw cause instanceof Fault && cause.kind === 'conflict' ? otherwise : cause
    }
  }
}

function taken(name: string): Fault {
  return new Fault('conflict', `storage '${name}' already exists`)
}

function changedMeanwhile(): Fault {
  return new Fault('conflict', 'detected modified configuration - file changed by other user? Try again.')
}
