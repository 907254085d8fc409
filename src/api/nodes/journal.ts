/** `/nodes/{node}/{journal,syslog}`: what programs of a node have said. */
import { array, integer, object, optional, string } from '#base/schema/schema.ts'
import { nodeName } from '#base/schema/standard.ts'
import { journal } from '#host/system/systemd.ts'
import { check, Reply } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'

const mayRead = check('Sys.Syslog', '/nodes/{node}')
const time = (description: string) =>
  optional(integer({ description: `${description}, in seconds since 1970.`, minimum: 0, maximum: 4_102_444_800 }))
const date = (description: string) =>
  optional(
    string({
      description: `${description}: a date, and a time if wanted.`,
      pattern: /^\d{4}-\d{2}-\d{2}( \d{2}:\d{2}(:\d{2})?)?$/,
      maxLength: 19,
    }),
  )
const cursor = (description: string) => optional(string({ description, pattern: /[a-z0-9=;]+/, maxLength: 256 }))
const most = 50_000

export const journalEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/journal',
    description: 'Lines of the journal, between a first and a last line with the cursors of the page.',
    proxyTo: 'node',
    params: {
      node: nodeName,
      since: time('From this time on'),
      until: time('Up to this time'),
      lastentries: optional(integer({ description: 'The newest so many.', minimum: 0, maximum: most })),
      startcursor: cursor('After the line with this cursor.'),
      endcursor: cursor('Up to the line with this cursor.'),
    },
    permission: mayRead,
    returns: array(string({ description: 'A line.' })),
    cli: { command: ['node', 'journal'], positional: ['node'], examples: ['node journal lab --lastentries 100'] },
    async handle({ since, until, lastentries, startcursor, endcursor }, { services, signal }) {
      const query = { since, until, newest: lastentries ?? most, afterCursor: startcursor, beforeCursor: endcursor }
      const { lines, firstCursor = '', lastCursor = '' } = await journal(services.host, query, signal)
      return [firstCursor, ...lines, lastCursor]
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/syslog',
    description: 'Lines of the journal, numbered.',
    proxyTo: 'node',
    params: {
      node: nodeName,
      start: optional(integer({ description: 'Leave out that many lines.', minimum: 0, maximum: most })),
      limit: optional(integer({ description: 'At most that many.', minimum: 0, maximum: most })),
      since: date('From then on'),
      until: date('Up to then'),
      service: optional(string({ description: 'Only of this service.', pattern: /[a-zA-Z0-9@._-]+/, maxLength: 128 })),
    },
    permission: mayRead,
    returns: array(
      object({ n: integer({ description: 'Number of the line.' }), t: string({ description: 'The line.' }) }),
    ),
    async handle({ start = 0, limit = 50, since, until, service }, { services, signal }) {
      const { lines } = await journal(services.host, { since, until, unit: service }, signal)
      const page = lines.slice(start, start + limit)
      const numbered = page.map((t, index) => ({ n: start + index + 1, t }))
      return new Reply(numbered.length === 0 ? [{ n: 1, t: 'no content' }] : numbered, { total: lines.length })
    },
  }),
]
