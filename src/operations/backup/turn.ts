/**
 * Backups of a node take turns: so many tasks read guests at once, and the others wait.
 *
 * A place is a lock of the task, so that one that died keeps its place until it is undone, and no longer.
 */
import { type Clock, waitFor } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Store } from '#store/store.ts'
import { acquireLocks, heldLocks, releaseLocks } from '#tasks/lock.ts'

const askEveryMs = 500
const placeShape = /^backup\/\d+$/

export interface TurnOptions {
  readonly atOnce: number
  readonly timeoutMs: number
  readonly clock: Clock
  readonly signal: AbortSignal
  /** Told once, with the tasks that are waited for. */
  readonly onWait: (upids: readonly string[]) => void
}

/** The task's place, to be disposed of. @throws Fault `conflict` when it is none's turn for so long, `aborted` */
export async function ownTurn(
  store: Store,
  upid: string,
  { atOnce, timeoutMs, clock, signal, onWait }: TurnOptions,
): Promise<AsyncDisposable> {
  let isTold = false
  const attempt = async () => {
    for (let number = 1; number <= atOnce; number += 1) {
      const place = `backup/${number}`
      if (await isTaken(place)) return place
    }
    if (!isTold) onWait(await others(store))
    isTold = true
    return undefined
  }
  const isTaken = async (place: string): Promise<boolean> => {
    try {
      await acquireLocks(store, [place], upid, { timeoutMs: 0, clock, signal })
      return true
    } catch (fault) {
      if (isFault(fault, 'conflict')) return false
      throw fault
    }
  }
  try {
    const place = await waitFor(attempt, { what: 'a turn', timeoutMs, everyMs: askEveryMs, signal, clock })
    return {
      [Symbol.asyncDispose]: () => releaseLocks(store, (holder, name) => holder === upid && name === place),
    }
  } catch (cause) {
    if (signal.aborted) throw new Fault('aborted', 'interrupted while waiting for other backups', { cause })
    if (!isFault(cause, 'timeout')) throw cause
    throw new Fault('conflict', `other backups of this node go on: ${(await others(store)).join(', ')}`, {
      remedy: 'Wait for them, stop one, or let more run at once (hako backup set-options --at-once 2).',
    })
  }
}

async function others(store: Store): Promise<string[]> {
  return (await heldLocks(store)).filter(({ name }) => placeShape.test(name)).map(({ upid }) => upid)
}
