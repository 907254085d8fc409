/** Processor models the owner of the cluster made: a real model with other flags, for guests that ask for `custom-<name>`. */
import { createHash } from 'node:crypto'
import { Fault } from '#base/fault.ts'
import { record } from '#base/schema/schema.ts'
import { Documents } from '#store/document.ts'
import type { Store } from '#store/store.ts'

/** Parameters of the model as they are in the API, checked. */
export type CpuModelValues = Readonly<Record<string, string | number | boolean>>

export interface NamedCpuModel {
  readonly name: string
  readonly values: CpuModelValues
  readonly digest: string
}

export class CpuModels {
  readonly #documents: Documents<Record<string, unknown>>

  constructor({ store }: { readonly store: Store }) {
    const kind = { noun: 'custom CPU model', prefix: 'cluster/cpu-models/', schema: record() }
    this.#documents = new Documents(store, kind)
  }

  async list(): Promise<NamedCpuModel[]> {
    return (await this.#documents.list()).map(({ name, value }) => asModel(name, value))
  }

  async find(name: string): Promise<NamedCpuModel | undefined> {
    const found = await this.#documents.find(name)
    return found && asModel(name, found.value)
  }

  /** @throws Fault `conflict` when there is one of that name */
  async create(name: string, values: CpuModelValues): Promise<void> {
    await this.#documents.create(name, { ...values })
  }

  /** @throws Fault `missing`; `conflict` when it is not what the digest says any more */
  async change(
    name: string,
    set: CpuModelValues,
    { remove, digest }: { readonly remove: readonly string[]; readonly digest: string | undefined },
  ): Promise<void> {
    await this.#documents.update(name, (before) => {
      if (digest !== undefined && digest !== digestOf(before)) {
        throw new Fault('conflict', 'detected modified configuration - file changed by other user? Try again.')
      }
      return { ...Object.fromEntries(Object.entries(before).filter(([key]) => !remove.includes(key))), ...set }
    })
  }

  /** @throws Fault `missing` */
  async delete(name: string): Promise<void> {
    await this.#documents.delete(name)
  }
}

function asModel(name: string, value: Record<string, unknown>): NamedCpuModel {
  const values = Object.entries(value).filter((entry): entry is [string, string | number | boolean] => {
    return ['string', 'number', 'boolean'].includes(typeof entry[1])
  })
  return { name, values: Object.fromEntries(values), digest: digestOf(value) }
}

function digestOf(value: Record<string, unknown>): string {
  const sorted = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1))
  return createHash('sha1').update(JSON.stringify(sorted)).digest('hex')
}
