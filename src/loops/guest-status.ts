/**
 * Notices guests that ended by themselves, and clears up after them; and when what serves containers has ended. Tasks need no loop: the service that
 * starts them follows each to its end.
 *
 * Takes no input on purpose: after a crash there is none, and the path after a crash must be the everyday
 * path. A round that fails is logged and the next one tries again.
 */
import type { Services } from '#services.ts'
import { keepGoing } from './rounds.ts'

const [everyMs, servedEveryMs] = [1_000, 3_000]

export function watchGuests(deps: Pick<Services, 'guests' | 'clock' | 'log'>, signal: AbortSignal): void {
  const { guests, log } = deps
  const round = async () => {
    for (const vmid of await guests.reapDead()) log.info('a guest has ended', { vmid })
  }
  const failed = 'looking after guests failed'
  keepGoing(deps, { everyMs, round, failed, ended: 'nobody looks after guests any more' }, signal)
  const served = async () => {
    const vmids = await guests.keepServed()
    if (vmids.length > 0)
      log.warn('lxcfs had ended: running containers see their limits again when they restart', { vmids })
  }
  const ended = 'nobody looks after lxcfs any more'
  keepGoing(deps, { everyMs: servedEveryMs, round: served, failed: 'looking after lxcfs failed', ended }, signal)
}
