/** Jobs that synchronize realms with their directories. */
import type { Clock } from '#base/clock.ts'
import type { Store } from '#store/store.ts'
import { ScheduledJobs } from './scheduled-jobs.ts'

export class RealmSyncJobs extends ScheduledJobs {
  constructor(needs: { readonly store: Store; readonly clock: Clock }) {
    super(needs, 'realm-sync')
  }

  /** Takes the jobs of a realm along with it: a later realm of that name is another directory. */
  async forgetRealm(realm: string): Promise<void> {
    for (const { id, options } of await this.list()) if (options.realm === realm) await this.delete(id)
  }
}
