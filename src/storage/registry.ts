/**
 * Which storages are configured: documents `storage/<name>` in the store. What lets the node in somewhere lies beside them,
 * in `storage-secrets/<name>`, and is in no configuration anybody is shown.
 *
 * Who may run beside whom: any number of changers; each compares and puts, so of two who change the same
 * storage at once the second is told and nothing is lost.
 */
import { Fault, invalid, missing } from '#base/fault.ts'
import type { Store } from '#store/store.ts'
import {
  asDocument,
  asSecrets,
  type CheckedStorage,
  checkStorage,
  configOf,
  type StorageConfig,
  type StorageDocument,
  type StorageInput,
} from './config.ts'
import type { Secrets } from './plugin.ts'

const PREFIX = 'storage/'
const SECRETS = 'storage-secrets/'

type Prepare = (config: StorageConfig, secrets: Secrets) => Promise<void>

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

  /** To get into where it is. */
  async secretsOf(name: string): Promise<Secrets> {
    return asSecrets((await this.#store.get(SECRETS + name))?.value)
  }

  /**
   * @param prepare makes the place ready; runs before the storage is visible to anybody
   * @throws Fault `invalid` naming each wrong field, `conflict` when the name or the path is taken
   */
  async create(input: StorageInput, prepare: Prepare): Promise<StorageConfig> {
    const checked = checkStorage(input)
    const { document, secrets } = checked
    const config = configOf(document)
    if ((await this.#store.get(PREFIX + config.name)) !== undefined) throw taken(config.name)
    const neighbour = (await this.list()).find(({ options }) => options['path'] === config.options['path'])
    if (neighbour && config.options['path'] !== undefined) {
      throw invalid({ path: `'${config.options['path']}' is the path of storage '${neighbour.name}' already` })
    }
    await prepare(config, secrets)
    await this.#put(config.name, checked, 0, taken(config.name))
    return config
  }

  /**
   * @param prepare runs before the change is visible, with the configuration before and after
   * @throws Fault `missing`, `invalid`, `conflict` when it was changed meanwhile or `digest` is another
   */
  async update(
    name: string,
    change: StorageChange,
    prepare: (before: StorageConfig, after: StorageConfig, secrets: Secrets) => Promise<void>,
  ): Promise<StorageConfig> {
    const { document, revision } = await this.#read(name)
    const before = configOf(document)
    if (change.digest !== undefined && change.digest !== before.digest) throw changedMeanwhile()
    const all = { ...document, ...(await this.secretsOf(name)) }
    const kept = Object.entries(all).filter(([key]) => !change.remove?.includes(key))
    const input = { ...Object.fromEntries(kept), ...change.set }
    const next = checkStorage({ ...input, storage: name, type: String(document['type']) })
    const after = configOf(next.document)
    await prepare(before, after, next.secrets)
    await this.#put(name, next, revision, changedMeanwhile())
    return after
  }

  /**
   * Puts a storage back to what is given, whatever it was.
   * @throws Fault `missing`, `conflict` when it was changed meanwhile
   */
  async reset(input: StorageInput, prepare: Prepare): Promise<void> {
    const { revision } = await this.#read(input.storage)
    const checked = checkStorage(input)
    await prepare(configOf(checked.document), checked.secrets)
    await this.#put(input.storage, checked, revision, changedMeanwhile())
  }

  /** Forgets the storage; its volumes stay where they are. @throws Fault `missing` */
  async delete(name: string): Promise<void> {
    const { revision } = await this.#read(name)
    await this.#store.transact(
      [{ key: PREFIX + name, revision }],
      [{ delete: PREFIX + name }, { delete: SECRETS + name }],
    )
  }

  async #read(name: string): Promise<{ document: StorageDocument; revision: number }> {
    const entry = await this.#store.get(PREFIX + name)
    if (!entry) throw missing('storage', name)
    return { document: asDocument(entry.value), revision: entry.revision }
  }

  async #put(name: string, { document, secrets }: CheckedStorage, revision: number, otherwise: Fault): Promise<void> {
    const [key, hidden] = [PREFIX + name, SECRETS + name]
    const isSecret = Object.keys(secrets).length > 0
    try {
      await this.#store.transact(
        [{ key, revision }],
        [{ put: key, value: document }, isSecret ? { put: hidden, value: secrets } : { delete: hidden }],
      )
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
