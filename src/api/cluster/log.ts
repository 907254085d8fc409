/** `/cluster/log`: what happened lately. */
import { integer, optional } from '#base/schema/schema.ts'
import { anyone } from '#rest/endpoint.ts'
import { logEntries, logOf } from '#views/cluster-log.ts'
import { endpoint } from '../call.ts'

export const clusterLogEndpoints = [
  endpoint({
    method: 'GET',
    path: '/cluster/log',
    description: 'What happened lately, newest first; without Sys.Syslog on / only what the caller did.',
    params: { max: optional(integer({ description: 'At most so many entries.', minimum: 1, maximum: 1000 })) },
    permission: anyone,
    returns: logEntries,
    cli: { command: ['cluster', 'log'], columns: ['time', 'node', 'user', 'msg'], id: 'uid' },
    async handle({ max = 50 }, { services, may, who }) {
      const visibleTo = (await may('/', 'Sys.Syslog')) ? undefined : who.authId
      const { tasks } = await services.tasks.list({ source: 'all', limit: max, visibleTo })
      return logOf(tasks, max)
    },
  }),
]
