/** What holds for all backups of this node: how many run at once, and who is told how jobs went. */
import { enumOf, integer, object, optional, string, type Static } from '#base/schema/schema.ts'
import { Documents } from '#store/document.ts'
import type { Store } from '#store/store.ts'

const shape = object({
  /** Tasks that back up at the same time, each one guest after the other. */
  atOnce: optional(integer({ minimum: 1, maximum: 64 })),
  webhook: optional(
    object({
      url: string({ maxLength: 2048 }),
      on: enumOf(['always', 'failure']),
      /** Header the secret goes into, and the file of root's it is read from whenever it is needed. */
      header: optional(string({ maxLength: 64 })),
      secretFile: optional(string({ maxLength: 4096 })),
    }),
  ),
})

export type BackupOptionsValue = Static<typeof shape>
export type Webhook = NonNullable<BackupOptionsValue['webhook']>

export const defaultAtOnce = 1
const name = 'options'

export class BackupOptions {
  readonly #documents: Documents<BackupOptionsValue>

  constructor(store: Store) {
    this.#documents = new Documents(store, { noun: 'backup options', prefix: 'cluster/backup-options/', schema: shape })
  }

  async get(): Promise<BackupOptionsValue> {
    return (await this.#documents.find(name))?.value ?? {}
  }

  async change(change: (before: BackupOptionsValue) => BackupOptionsValue): Promise<void> {
    await this.#documents.alter(name, (before = {}) => change(before))
  }
}
