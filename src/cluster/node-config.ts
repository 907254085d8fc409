/** What a node is told about itself: texts by name, in one document per node. */
import { createHash } from 'node:crypto'
import { Fault } from '#base/fault.ts'
import { record } from '#base/schema/schema.ts'
import { Documents } from '#store/document.ts'
import type { Store } from '#store/store.ts'

export type NodeOptions = Readonly<Record<string, string>>

export interface NodeConfig {
  readonly options: NodeOptions
  /** SHA-1 of the options, in hexadecimal. */
  readonly digest: string
}

export interface NodeConfigChange {
  readonly set: NodeOptions
  readonly remove: readonly string[]
  readonly digest?: string | undefined
}

export class NodeConfigs {
  readonly #documents: Documents<Record<string, unknown>>

  constructor({ store }: { readonly store: Store }) {
    this.#documents = new Documents(store, { noun: 'node', prefix: 'cluster/nodes/', schema: record() })
  }

  async of(node: string): Promise<NodeConfig> {
    return asConfig((await this.#documents.find(node))?.value)
  }

  /** @throws Fault `conflict` when the digest is not that of what is there */
  async change(node: string, { set, remove, digest }: NodeConfigChange): Promise<void> {
    await this.#documents.alter(node, (before) => {
      const current = asConfig(before)
      if (digest !== undefined && digest !== '' && digest !== current.digest) {
        throw new Fault('conflict', 'detected modified configuration - file changed by other user? Try again.')
      }
      const kept = Object.entries(current.options).filter(([name]) => !remove.includes(name))
      return { ...Object.fromEntries(kept), ...set }
    })
  }
}

function asConfig(value: Readonly<Record<string, unknown>> = {}): NodeConfig {
  const texts = Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === 'string')
  const options = Object.fromEntries(texts.toSorted(([a], [b]) => (a < b ? -1 : 1)))
  return { options, digest: createHash('sha1').update(JSON.stringify(options)).digest('hex') }
}
