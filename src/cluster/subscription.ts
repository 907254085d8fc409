/**
 * The subscription key a node was given. There is nothing to subscribe to, and nobody asks about the key; it is kept because
 * tools set it and read it back.
 */
import { createHash } from 'node:crypto'
import { readIfPresent } from '#host/files.ts'
import { type Clock, seconds } from '#base/clock.ts'
import { integer, object, string } from '#base/schema/schema.ts'
import { Documents } from '#store/document.ts'
import type { Store } from '#store/store.ts'

export interface Subscription {
  /** `notfound` without a key; `new`: given, and never looked at by anybody. */
  readonly status: 'notfound' | 'new'
  readonly message: string
  readonly serverid?: string
  readonly key?: string
  readonly checktime?: number
}

const shape = object({ key: string(), since: integer() })

export class Subscriptions {
  readonly #keys: Documents<{ key: string; since: number }>
  readonly #clock: Clock

  constructor({ store, clock }: { readonly store: Store; readonly clock: Clock }) {
    this.#keys = new Documents(store, { noun: 'subscription', prefix: 'cluster/subscriptions/', schema: shape })
    this.#clock = clock
  }

  async of(node: string): Promise<Subscription> {
    const found = (await this.#keys.find(node))?.value
    const id = await readIfPresent('/etc/machine-id')
    const serverid = id === undefined ? {} : { serverid: createHash('md5').update(id).digest('hex').toUpperCase() }
    if (!found) return { status: 'notfound', message: 'There is no subscription key; none is needed.', ...serverid }
    const message = 'The key is kept; no subscription is needed.'
    return { status: 'new', message, key: found.key, checktime: found.since, ...serverid }
  }

  async setKey(node: string, key: string): Promise<void> {
    await this.#keys.put(node, { key: key.trim(), since: seconds(this.#clock) })
  }

  async remove(node: string): Promise<void> {
    await this.#keys.alter(node, () => undefined)
  }
}
