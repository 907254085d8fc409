/**
 * What the daemon looks after while it runs: guests that ended by themselves, and tasks whose process died.
 *
 * Takes no input on purpose: after a crash there is none, and the path after a crash must be the everyday
 * path. A round that fails is logged and the next one tries again.
 */
import { isFault } from '#base/fault.ts'
import type { Services } from '#services.ts'
import type { TaskService } from '#tasks/service.ts'

const everyMs = 1_000

export function keepWatch(
  { guests, tasks, clock, log }: Pick<Services, 'guests' | 'clock' | 'log'> & { readonly tasks: TaskService },
  signal: AbortSignal,
): void {
  const rounds = async () => {
    for (;;) {
      await clock.sleep(everyMs, signal)
      for (const [what, round] of [
        ['guests', () => guests.reapDead()],
        ['tasks', () => tasks.recover()],
      ] as const) {
        try {
          await round()
        } catch (error) {
          log.error(`looking after ${what} failed`, { error })
        }
      }
    }
  }
  rounds().catch((error: unknown) => {
    if (!isFault(error, 'aborted')) log.error('the watch has ended', { error })
  })
}
