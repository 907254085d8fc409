/**
 * Options of the whole cluster: texts by name, in Proxmox VE's spelling, in one document.
 *
 * Here they are only kept. Who acts on one asks for it at that moment (`nextIdRange`), so that a change holds at once.
 */
import { parsePropertyString } from '#base/schema/property-string.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import { integer, optional, record } from '#base/schema/schema.ts'
import { Documents } from '#store/document.ts'
import type { Store } from '#store/store.ts'

export type ClusterOptionValues = Readonly<Record<string, string>>

const name = 'options'

/** Ids guests get when nobody names one. */
export const nextIdFormat: PropertyFormat = {
  lower: { schema: optional(integer({ minimum: 100, maximum: 999_999_999, default: 100 })) },
  upper: { schema: optional(integer({ minimum: 100, maximum: 1_000_000_000, default: 1_000_000 })) },
}

export class ClusterOptions {
  readonly #documents: Documents<Record<string, unknown>>

  constructor({ store }: { readonly store: Store }) {
    this.#documents = new Documents(store, { noun: 'cluster option', prefix: 'cluster/', schema: record() })
  }

  async all(): Promise<ClusterOptionValues> {
    return textsIn((await this.#documents.find(name))?.value ?? {})
  }

  /** Sets some and removes others, in one act. */
  async change(set: ClusterOptionValues, remove: readonly string[]): Promise<void> {
    await this.#documents.alter(name, (before = {}) => {
      const kept = Object.entries(before).filter(([option]) => !remove.includes(option))
      return { ...Object.fromEntries(kept), ...set }
    })
  }

  /** First and last id that may be given to a guest nobody names an id for. */
  async nextIdRange(): Promise<{ readonly lower: number; readonly upper: number }> {
    const parsed = parsePropertyString(nextIdFormat, (await this.all())['next-id'] ?? '')
    const values = parsed.ok ? parsed.values : {}
    // The upper end is the first id that is not given, as Proxmox VE counts.
    return { lower: Number(values.lower ?? 100), upper: Number(values.upper ?? 1_000_000) - 1 }
  }
}

function textsIn(value: Readonly<Record<string, unknown>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  )
}
