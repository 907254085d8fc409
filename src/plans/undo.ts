/** Makes undone what a step did. Looks at the world: what is gone already needs no undo, and it may run twice. */
import { isFault, messageOf } from '#base/fault.ts'
import { exists, perform } from './act.ts'
import type { AttemptFacts } from './attempt.ts'
import { demandOwn } from './grant.ts'
import type { PlanStep } from './plan.ts'

/** @throws Fault of what could not be undone */
export async function undoStep(
  step: PlanStep,
  object: string | undefined,
  facts: Pick<AttemptFacts, 'world' | 'secrets' | 'values' | 'state' | 'grants'>,
): Promise<void> {
  const { world, values, secrets, state } = facts
  if (object !== undefined && !(await exists(object, world))) return
  const deadline = world.clock.monotonic() + step.timeoutSeconds * 1000
  let failure: unknown
  for (const act of step.undo) {
    try {
      await perform(act, {
        world,
        values,
        secrets,
        deadline,
        beforeCall: (call) => demandOwn(call, state),
        onTask: async () => {},
      })
    } catch (error) {
      if (isFault(error, 'denied') || world.signal.aborted) throw error
      if (isFault(error, 'missing')) continue
      // The stop of a guest that is off fails; that it goes is what counts, and the last undo says that.
      world.log(`${step.id}: undo: ${world.hide(messageOf(error))}`)
      failure = error
      continue
    }
    failure = undefined
  }
  if (failure !== undefined && (object === undefined || (await exists(object, world)))) throw failure
}
