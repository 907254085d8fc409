/**
 * Runs jobs that look after datastores when they are due, and makes those everybody should have: a canary each day where
 * what was stored is to be kept from being destroyed, and a look at a part of what lies in folders of the node. Reading what
 * is elsewhere costs money, so nobody does that unasked.
 */
import { isFault } from '#base/fault.ts'
import { tendDatastore, tendingOf } from '#operations/backup/tend.ts'
import type { DatastoreJobType } from '#cluster/datastore-jobs.ts'
import type { NodeServices } from '#services.ts'
import type { Json } from '#store/store.ts'
import { type DueDeps, type JobKind, keepRunning, runDue } from './due-jobs.ts'
import { keepGoing } from './rounds.ts'

export type DatastoreJobDeps = DueDeps & Pick<NodeServices, 'datastoreJobs'>
export type OfferDeps = Pick<NodeServices, 'clock' | 'log' | 'datastoreJobs' | 'upkeep' | 'random'> & {
  readonly storage: Pick<NodeServices['storage'], 'list'>
}

const offersEveryMs = 10 * 60_000

export function runDatastoreJobs(deps: DatastoreJobDeps & OfferDeps, signal: AbortSignal): void {
  keepRunning(deps, kindOf(deps), signal)
  const round = async () => void (await offerJobs(deps))
  const ended = 'nobody makes jobs for new datastores any more'
  keepGoing(deps, { everyMs: offersEveryMs, round, failed: 'jobs for new datastores are not made', ended }, signal)
}

/** Starts what is due now; returns the tasks. */
export async function runDueDatastoreJobs(deps: DatastoreJobDeps): Promise<string[]> {
  return runDue(deps, kindOf(deps))
}

function kindOf({ tasks, datastoreJobs: jobs }: DatastoreJobDeps): JobKind {
  return {
    noun: 'datastore',
    jobs,
    isOwed: true,
    start(job) {
      const params: Json = JSON.parse(JSON.stringify(tendingOf(job)))
      return tasks.start({ operation: tendDatastore.name, params, user: 'root@pam' })
    },
  }
}

/** Makes the jobs of datastores that have none yet, once. @returns their ids */
export async function offerJobs({ storage, upkeep, datastoreJobs, random, log }: OfferDeps): Promise<string[]> {
  const made: string[] = []
  const there = new Set((await datastoreJobs.list()).map(({ id }) => id))
  for (const { name, content, type, isDisabled } of await storage.list()) {
    if (!content.includes('backup') || isDisabled) continue
    try {
      const about = await upkeep.about(name)
      if (!about || (await datastoreJobs.isOffered(name, about.id))) continue
      const wanted: DatastoreJobType[] = []
      if (about.isGuarded) wanted.push('canary')
      if (type !== 's3' && type !== 'hakobune') wanted.push('verify')
      for (const one of wanted) {
        const id = `${one}-${name}`.slice(0, 64)
        // Not every node of the world at the same minute.
        const minute = String((random.bytes(1)[0] ?? 0) % 60).padStart(2, '0')
        // Somebody's, or made by a daemon that died before it was done.
        if (there.has(id)) continue
        await datastoreJobs.create(id, { type: one, storage: name, schedule: `03:${minute}`, 'repeat-missed': true })
        made.push(id)
      }
      await datastoreJobs.offered(name, about.id)
    } catch (fault) {
      // A storage that is not there now has its turn when it is.
      if (!isFault(fault)) throw fault
      if (!isFault(fault, 'unavailable')) log.debug('no job is made for a datastore', { storage: name, fault })
    }
  }
  return made
}
