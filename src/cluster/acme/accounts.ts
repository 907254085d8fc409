/**
 * Accounts at ACME servers, and how names are proven to them.
 *
 * What is known of an account is in the store; its key is a file only root may read, because whoever has it can revoke
 * every certificate that was ordered with it.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault, missing } from '#base/fault.ts'
import { array, object, optional, type Static, string } from '#base/schema/schema.ts'
import { makeDirectory, readIfPresent, writeFileAtomic } from '#host/files.ts'
import type { Settings } from '#settings.ts'
import { Documents } from '#store/document.ts'
import type { Store } from '#store/store.ts'

const shape = object({
  directory: string(),
  location: string(),
  contact: array(string()),
  tos: optional(string()),
})
export type AcmeAccount = Static<typeof shape>

export class AcmeAccounts {
  readonly #directory: string
  readonly #documents: Documents<AcmeAccount>

  constructor({ settings, store }: { readonly settings: Pick<Settings, 'stateDir'>; readonly store: Store }) {
    this.#directory = join(settings.stateDir, 'keys', 'acme')
    this.#documents = new Documents(store, { noun: 'ACME account', prefix: 'cluster/acme/accounts/', schema: shape })
  }

  async names(): Promise<string[]> {
    return (await this.#documents.list()).map(({ name }) => name)
  }

  /** @throws Fault `missing`, in the words clients know */
  async get(name: string): Promise<AcmeAccount> {
    const found = await this.#documents.find(name)
    if (!found) throw new Fault('missing', `ACME account config file '${name}' does not exist.`)
    return found.value
  }

  /** @throws Fault `conflict`, in the words clients know */
  async requireNew(name: string): Promise<void> {
    if (!(await this.#documents.find(name))) return
    throw new Fault('conflict', `ACME account config file '${name}' already exists.`)
  }

  async put(name: string, account: AcmeAccount): Promise<void> {
    await this.#documents.put(name, account)
  }

  /** The key stays: see `removeKey`. */
  async forget(name: string): Promise<void> {
    await this.#documents.alter(name, () => undefined)
  }

  async setKey(name: string, key: string): Promise<void> {
    await makeDirectory(this.#directory, 0o700)
    await writeFileAtomic(this.#fileOf(name), key, 0o600)
  }

  /** @throws Fault `missing` */
  async key(name: string): Promise<string> {
    const key = await readIfPresent(this.#fileOf(name))
    if (key === undefined) throw missing('key of ACME account', name)
    return key
  }

  async removeKey(name: string): Promise<void> {
    await rm(this.#fileOf(name), { force: true })
  }

  #fileOf(name: string): string {
    return join(this.#directory, `${name}.key`)
  }
}
