/**
 * Gives back the space of datastores by itself: of every storage once a day, and sooner where something waits that somebody
 * could still have relied on when it was removed.
 *
 * Takes no input: that something waits is in the datastore, and when it was looked at last is in the store. The work is a
 * task, so that it costs the daemon nothing.
 */
import { seconds } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { collectSpace } from '#operations/backup/collect.ts'
import type { NodeServices } from '#services.ts'
import { keepGoing } from './rounds.ts'

type Deps = Pick<NodeServices, 'backup' | 'store' | 'clock' | 'log' | 'datastoreJobs'> & {
  readonly storage: Pick<NodeServices['storage'], 'list'>
  readonly tasks: Pick<NodeServices['tasks'], 'start'>
}

const everyMs = 10 * 60_000
const restSeconds = { waiting: 60 * 60, perhaps: 24 * 60 * 60 } as const
const keyOf = (storage: string) => `garbage/${storage}`

export function collectGarbage(deps: Deps, signal: AbortSignal): void {
  const rounds = { everyMs, failed: 'garbage was not collected', ended: 'nobody collects garbage any more' }
  keepGoing(deps, { ...rounds, round: async () => void (await collectWhereDue(deps)) }, signal)
}

/** Starts a task for each storage on which there may be something to give back. @returns their names */
export async function collectWhereDue(deps: Deps): Promise<string[]> {
  const { storage, backup, datastoreJobs, store, tasks, clock, log } = deps
  const due: string[] = []
  const collections = await datastoreJobs.collections()
  for (const { name, content } of await storage.list()) {
    if (!content.includes('backup')) continue
    try {
      const last = Number((await store.get(keyOf(name)))?.value ?? 0)
      const garbage = await backup.garbage(name)
      if (garbage === 'none') continue
      // One that died left its work to the next.
      const isOver = (collections.get(name)?.ended ?? 0) >= last
      if (seconds(clock) - last < restSeconds[isOver ? garbage : 'waiting']) continue
      await store.transact([], [{ put: keyOf(name), value: seconds(clock) }])
      await tasks.start({ operation: collectSpace.name, params: { storage: name }, user: 'root@pam' })
      due.push(name)
    } catch (error) {
      // A storage that is not there now has its turn when it is.
      if (!isFault(error)) throw error
      if (!isFault(error, 'unavailable')) log.warn('garbage is not looked after', { storage: name, error })
    }
  }
  return due
}
