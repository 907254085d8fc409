/** Runs of plans on this node: kept while they go on, and for a while after. */
import { limits } from '#base/limits.ts'
import { missing } from '#base/fault.ts'
import type { Json, Store } from '#store/store.ts'
import { isOver, type RunState } from './run-state.ts'

const prefix = 'plans/runs/'

export class PlanService {
  readonly #store: Store

  constructor({ store }: { readonly store: Store }) {
    this.#store = store
  }

  async save(state: RunState): Promise<void> {
    const value: Json = JSON.parse(JSON.stringify(state))
    await this.#store.transact([], [{ put: prefix + state.run, value }])
  }

  async find(run: string): Promise<RunState | undefined> {
    const entry = await this.#store.get(prefix + run)
    // Written by `save` alone.
    return entry && (entry.value as unknown as RunState)
  }

  /** @throws Fault `missing` */
  async get(run: string): Promise<RunState> {
    const found = await this.find(run)
    if (!found) throw missing('run of a plan', run)
    return found
  }

  /** Newest first. @param plan id of a plan */
  async list(plan?: string): Promise<RunState[]> {
    const all = (await this.#store.list(prefix)).map(({ value }) => value as unknown as RunState)
    return all.filter((state) => plan === undefined || state.plan.id === plan).toReversed()
  }

  /** The newest run of a plan that has not come to its end. */
  async unfinished(plan: string): Promise<RunState | undefined> {
    return (await this.list(plan)).find((state) => !isOver(state))
  }

  /** Forgets the oldest runs that are over, beyond the number to keep. Their evidence stays. */
  async prune(): Promise<void> {
    const over = (await this.list()).filter(isOver).slice(limits.plans.keptRuns)
    if (over.length > 0)
      await this.#store.transact(
        [],
        over.map(({ run }) => ({ delete: prefix + run })),
      )
  }
}
