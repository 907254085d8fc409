/** What the engine gets from a command. */
import { systemClock } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'

export const deps = { clock: systemClock, random: systemRandom, log: silentLog }
