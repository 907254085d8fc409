/**
 * Notices guests that ended by themselves, and clears up after them. Tasks need no loop: the service that
 * starts them follows each to its end.
 *
 * Takes no input on purpose: after a crash there is none, and the path after a crash must be the everyday
 * path. A round that fails is logged and the next one tries again.
 */
import { isFault } from '#base/fault.ts'
import type { Services } from '#services.ts'

const everyMs = 1_000

export function watchGuests(
  { guests, clock, log }: Pick<Services, 'guests' | 'clock' | 'log'>,
  signal: AbortSignal,
): void {
  const rounds = async () => {
    for (;;) {
      await clock.sleep(everyMs, signal)
      try {
        for (const vmid of await guests.reapDead()) log.info('a guest has ended', { vmid })
      } catch (error) {
        log.error('looking after guests failed', { error })
      }
    }
  }
  rounds().catch((error: unknown) => {
    if (!isFault(error, 'aborted')) log.error('nobody looks after guests any more', { error })
  })
}
