/** The services of one node: the same set is built in the daemon and in every task's process. */
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import type { Host } from '#host/host.ts'
import type { Store } from '#store/store.ts'
import type { Settings } from './settings.ts'

export interface Services {
  readonly settings: Settings
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly host: Host
  readonly store: Store
}
