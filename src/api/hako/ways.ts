/** What it takes to follow a request through the node: a session to come in by the front, and the way of a task. */
import { Fault, missing } from '#base/fault.ts'
import { array, enumOf, integer, number, object, string } from '#base/schema/schema.ts'
import { upid } from '#base/schema/standard.ts'
import { check } from '#rest/endpoint.ts'
import { TaskArchive } from '#tasks/archive.ts'
import { asUpid } from '#tasks/upid.ts'
import { endpoint } from '../call.ts'

const stop = object({
  passed: enumOf(['store', 'qmp', 'program', 'task'], { description: 'Kind of part.' }),
  name: string({ description: 'Guest, program or task.' }),
  ms: number({ description: 'How long it had it, in milliseconds.' }),
  times: integer({ description: 'How often it was passed.' }),
})

export const wayEndpoints = [
  endpoint({
    method: 'POST',
    path: '/hako/front-ticket',
    description: 'A session for who calls on the local socket, to make calls through the public port as anybody does.',
    params: {},
    permission: check('Sys.Audit', '/'),
    refusesTokens: true,
    isOwn: true,
    returns: object({
      url: string({ description: 'Where the front listens.' }),
      certificate: string({ description: 'What it proves itself by, in PEM form.' }),
      ticket: string({ description: 'For two hours.', isSecret: true }),
      CSRFPreventionToken: string({ description: 'Goes with every call that changes something.' }),
    }),
    async handle(_, { who, remoteAddress, services: { access, certificates, settings } }) {
      // The kernel's word is given here alone; and a task has the rights of its starter for as long as it runs, no longer.
      if (remoteAddress !== '' || who.task !== undefined)
        throw new Fault('denied', 'this session is given on the local socket of the node alone')
      const host = ['0.0.0.0', '::'].includes(settings.apiHost) ? '127.0.0.1' : settings.apiHost
      const url = `https://${host.includes(':') ? `[${host}]` : host}:${settings.apiPort}`
      return { url, certificate: (await certificates.wanted()).certificate, ...(await access.sessionOf(who.user)) }
    },
  }),
  endpoint({
    method: 'GET',
    path: '/hako/ways/{upid}',
    description: 'Which parts of the node a task passed whose start was followed, and how long each had it.',
    params: { upid },
    permission: check('Sys.Audit', '/'),
    isOwn: true,
    returns: object({
      ms: number({ description: 'How long the task took, in milliseconds.' }),
      ownMs: number({ description: 'Of that, in no other part.' }),
      stops: array(stop),
    }),
    async handle({ upid: text }, { services }) {
      const way = await new TaskArchive(services.settings.stateDir).way(asUpid(text))
      if (!way) throw missing('way of task', text)
      return { ms: way.ms, ownMs: way.ownMs, stops: way.stops.map((one) => ({ ...one })) }
    },
  }),
] as const
