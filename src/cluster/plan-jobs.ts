/** Plans that run again by themselves, in the lab: so that what they prove stays true. */
import type { Clock } from '#base/clock.ts'
import type { Store } from '#store/store.ts'
import { ScheduledJobs } from './scheduled-jobs.ts'

export class PlanJobs extends ScheduledJobs {
  constructor(needs: { readonly store: Store; readonly clock: Clock }) {
    super(needs, 'plan')
  }
}
