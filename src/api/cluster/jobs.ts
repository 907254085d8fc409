/** `/cluster/jobs`: what runs by itself. */
import { nextDue, parseCalendarEvent } from '#base/calendar-event.ts'
import { seconds } from '#base/clock.ts'
import { invalid } from '#base/fault.ts'
import { array, integer, object, optional, string } from '#base/schema/schema.ts'
import { anyone } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'
import { realmSyncEndpoints } from './realm-sync.ts'

export const jobEndpoints = [
  endpoint({
    method: 'GET',
    path: '/cluster/jobs',
    description: 'Kinds of jobs, and what there is to ask about them.',
    params: {},
    permission: anyone,
    returns: array(object({ subdir: string() })),
    handle: () => [{ subdir: 'realm-sync' }, { subdir: 'schedule-analyze' }],
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/jobs/schedule-analyze',
    description: 'The next moments a calendar event is due, in the time zone of the node that answers.',
    params: {
      schedule: string({
        description: 'Calendar event: `mon..fri 02:30`.',
        format: 'pve-calendar-event',
        maxLength: 128,
      }),
      starttime: optional(
        integer({
          description: 'After this, in seconds since 1970; now when absent.',
          minimum: 0,
          maximum: 4_102_444_800,
        }),
      ),
      iterations: optional(integer({ description: 'How many moments.', minimum: 1, maximum: 100, default: 10 })),
    },
    permission: anyone,
    returns: array(
      object({
        timestamp: integer({ description: 'Seconds since 1970.' }),
        utc: string({ description: 'The same for people, in universal time.' }),
      }),
    ),
    cli: {
      command: ['job', 'schedule'],
      positional: ['schedule'],
      columns: ['timestamp', 'utc'],
      id: 'timestamp',
      examples: ["job schedule 'mon..fri 02:30'"],
    },
    async handle({ schedule, starttime, iterations = 10 }, { services }) {
      const parsed = parseCalendarEvent(schedule)
      if (!parsed.ok) throw invalid({ schedule: `invalid format - ${parsed.complaint}` })
      const zone = await services.machine.timeZone()
      const found: { timestamp: number; utc: string }[] = []
      let last: number | undefined = starttime ?? seconds(services.clock)
      while (found.length < iterations) {
        last = nextDue(parsed.event, last, zone)
        if (last === undefined) break
        found.push({ timestamp: last, utc: new Date(last * 1000).toUTCString() })
      }
      return found
    },
  }),
  ...realmSyncEndpoints,
]
