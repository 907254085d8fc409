/** Locks of what backups need, kept up by whoever collects garbage (`places/retention.ts` says why that is enough). */
import { seconds } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { checkProperties } from '#base/schema/check.ts'
import { integer } from '#base/schema/schema.ts'
import type { Datastore } from '../datastore.ts'
import { keyFileName } from '../keys/key-file.ts'
import { packName } from '../packs/pack.ts'
import { slackSeconds } from '../places/retention.ts'
import { seal, unseal } from '../sealed.ts'

const extendedName = 'extended'
const extendedMaximumBytes = 4_096
const properties = { time: integer({ minimum: 0, maximum: 253_402_300_799 }) }

/** When all locks were extended last; 0 for never, and where nobody can say: then it is done now. */
export async function lastExtended({ place, deps }: Pick<Datastore, 'place' | 'deps'>): Promise<number> {
  const text = await place.get(extendedName, extendedMaximumBytes)
  if (!text) return 0
  try {
    const value = Object(unseal(text.toString('utf8'), `'${extendedName}'`)) as Record<string, unknown>
    const checked = checkProperties(properties, value)
    // One that is yet to come would put off the next time.
    return checked.ok && checked.values.time <= seconds(deps.clock) ? checked.values.time : 0
  } catch (fault) {
    if (!isFault(fault, 'damaged')) throw fault
    deps.log.warn('nobody knows when locks were extended last', { datastore: place.label, cause: fault })
    return 0
  }
}

/**
 * Sees to it that the packs, and what opens them, stay locked for as long as a backup made before the next time needs them.
 * @param packs that a backup needs, or may come to need
 * @returns how many locks were extended
 */
export async function extendLocks(datastore: Datastore, packs: Iterable<string>): Promise<number> {
  const { place, deps } = datastore
  const { lock } = place
  if (!lock) return 0
  const now = seconds(deps.clock)
  const slack = slackSeconds(lock.retainSeconds)
  if (now < (await lastExtended(datastore)) + slack / 2) return 0
  // Older ones are to go as soon as they may.
  const { generation } = await datastore.keyFile()
  const names = ['format', 'retention', keyFileName(generation), ...[...packs].map((pack) => packName(pack))]
  let extended = 0
  for (const name of names) {
    const until = (await lock.until(name)) ?? 0
    if (until >= now + lock.retainSeconds + slack / 2) continue
    await lock.extend(name, now + lock.retainSeconds + slack)
    extended += 1
  }
  await place.replace(extendedName, Buffer.from(seal({ time: now })))
  return extended
}

/** Locks nobody extended in time no longer hold what was promised. */
export async function isOverdue(datastore: Datastore): Promise<boolean> {
  const { place, deps, facts } = datastore
  if (!place.lock) return false
  const last = Math.max(facts.created, await lastExtended(datastore))
  return seconds(deps.clock) > last + slackSeconds(place.lock.retainSeconds)
}
