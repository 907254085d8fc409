/**
 * Whether a place refuses to lose what it was given, tried with the very credentials backups are made with.
 *
 * An alarm means that whoever breaks into the machine that makes the backups can destroy them, too.
 */
import { Fault } from '#base/fault.ts'
import type { Datastore } from '../datastore.ts'
import { isOverdue } from './locks.ts'
import { manifestName } from '../points/manifest.ts'
import { packName } from '../packs/pack.ts'
import { type CanaryAttempt, printSecond } from '../places/place.ts'
import { printPoint } from '../point.ts'

export interface CanaryVerdict {
  readonly attempts: readonly CanaryAttempt[]
  readonly isSafe: boolean
}

/** @throws Fault `unproven` where nothing ever refuses, as in a folder */
export async function tryCanary(datastore: Datastore): Promise<CanaryVerdict> {
  const { place } = datastore
  if (!place.canary) {
    throw new Fault('unproven', `nothing keeps '${place.label}' from being removed by whoever writes backups there`, {
      remedy: 'Keep a copy in a bucket with Object Lock, or behind hako datastore serve with a token that only adds.',
    })
  }
  const attempts = [...(await place.canary()), ...(await lockedAttempts(datastore))]
  return { attempts, isSafe: attempts.every(({ refused }) => refused) }
}

/** What is there already has to be locked as well. */
async function lockedAttempts(datastore: Datastore): Promise<CanaryAttempt[]> {
  const { place, deps } = datastore
  const { lock } = place
  if (!lock) return []
  const found: CanaryAttempt[] = [{ attempt: 'extended', refused: !(await isOverdue(datastore)) }]
  const newest = (await datastore.points()).at(-1)
  if (newest && newest.time + lock.retainSeconds > deps.clock.now() / 1000) {
    const until = await lock.until(manifestName(newest))
    found.push({ attempt: `newest (${printPoint(newest)})`, refused: until !== undefined, ...said(until) })
  }
  for await (const { name } of place.list('packs/')) {
    const until = await lock.until(packName(name.slice(-64)))
    // Garbage may have lost its lock. One that has one says enough.
    if (until === undefined) continue
    found.push({ attempt: `pack ${name.slice(-64)}`, refused: true, ...said(until) })
    break
  }
  return found
}

function said(until: number | undefined): { readonly until?: string } {
  return until === undefined ? {} : { until: printSecond(until) }
}
