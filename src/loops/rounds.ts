/**
 * What loops of the daemon have in common: a round again and again until the signal, and none ends them. A round that
 * fails is logged, and the next one tries again.
 */
import type { Clock } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'

export interface Rounds {
  readonly everyMs: number
  /** The first one comes at once instead of after the first wait. */
  readonly isAtOnce?: boolean
  readonly round: () => Promise<void>
  /** For the log, when a round has failed. */
  readonly failed: string
  /** For the log, when there will be no more rounds and nobody asked for that. */
  readonly ended: string
}

export function keepGoing(
  { clock, log }: { readonly clock: Clock; readonly log: Log },
  { everyMs, isAtOnce = false, round, failed, ended }: Rounds,
  signal: AbortSignal,
): void {
  const rounds = async () => {
    if (!isAtOnce) await clock.sleep(everyMs, signal)
    for (;;) {
      try {
        await round()
      } catch (error) {
        // What is interrupted on the way out has not failed.
        if (!signal.aborted) log.error(failed, { error })
      }
      await clock.sleep(everyMs, signal)
    }
  }
  rounds().catch((error: unknown) => {
    if (!isFault(error, 'aborted')) log.error(ended, { error })
  })
}
