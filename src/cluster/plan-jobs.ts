/** Plans that run again by themselves, in the lab: so that what they prove stays true. */
import type { Clock } from '#base/clock.ts'
import type { Store } from '#store/store.ts'
import { type Job, type JobOptions, ScheduledJobs } from './scheduled-jobs.ts'

/** With a copy of the plan: what its file says later is not what somebody has scheduled. */
export interface PlanJobOptions extends JobOptions {
  readonly schedule: string
  /** Identifier of the plan. */
  readonly plan: string
  /** With whose rights. */
  readonly owner: string
  /** Where the plan was read. */
  readonly file?: string
  readonly 'repeat-missed'?: boolean
  /** Parameters of its runs. */
  readonly request: { readonly plan: string; readonly document: string }
}

export interface PlanJob extends Job {
  readonly options: PlanJobOptions
}

export class PlanJobs extends ScheduledJobs {
  constructor(needs: { readonly store: Store; readonly clock: Clock }) {
    super(needs, 'plan')
  }

  /** @throws Fault `missing` */
  async job(id: string): Promise<PlanJob> {
    // Written by the endpoints, from parameters that were checked.
    return (await this.get(id)) as PlanJob
  }
}
