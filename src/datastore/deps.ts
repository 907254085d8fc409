/** What whoever works on a datastore is given. */
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'

export interface DatastoreDeps {
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}
