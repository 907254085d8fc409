/** Proves names: a small server that shows what was asked for and nothing else, or a record in the name server. */
import { once } from 'node:events'
import type { Server } from 'node:http'
import type { Clock } from '#base/clock.ts'
import { Fault, messageOf } from '#base/fault.ts'
import type { Host } from '#host/host.ts'
import { runTool } from '#host/tool.ts'
import type { Proof } from './client.ts'
import type { settingsOf } from './plugins.ts'

// By name: an ordinary import reads every export, and reading one of them loads undici.
const { createServer } = process.getBuiltinModule('node:http')
const prefix = '/.well-known/acme-challenge/'

/** Listens only while something is to be proven. */
export function byServer(port: number): Proof {
  const answers = new Map<string, string>()
  let server: Server | undefined
  return {
    kind: 'http-01',
    async create(_name, token, answer) {
      answers.set(prefix + token, answer)
      if (server) return
      const made = createServer((request, reply) => {
        const found = answers.get(request.url ?? '')
        reply.writeHead(found === undefined ? 404 : 200, { 'Content-Type': 'text/plain', Connection: 'close' })
        reply.end(found ?? '')
      })
      made.maxConnections = 64
      made.listen(port)
      await once(made, 'listening').catch((cause: unknown) => {
        throw new Fault('conflict', `port ${port} cannot be listened on to prove the name: ${messageOf(cause)}`, {
          cause,
          remedy: 'End the program that has it, or prove the name by dns.',
        })
      })
      server = made
    },
    async remove(_name, token) {
      answers.delete(prefix + token)
      if (answers.size > 0 || !server) return
      const ending = server
      server = undefined
      ending.closeAllConnections()
      await new Promise((resolve) => ending.close(resolve))
    },
  }
}

export interface RecordPlace extends ReturnType<typeof settingsOf> {
  /** Seconds until name servers of the world have it. */
  readonly delaySeconds: number
}

/** @param nameOf where the record lies */
export function byRecord(host: Host, clock: Clock, place: RecordPlace, nameOf: (name: string) => string): Proof {
  const change = async (act: 'add' | 'delete', name: string, answer: string) => {
    const record = `${nameOf(name)}. ${act === 'add' ? '60 ' : ''}TXT "${answer}"`
    const zone = place.zone === undefined ? [] : [`zone ${place.zone}`]
    const lines = [`server ${place.server} ${place.port}`, ...zone, `update ${act} ${record}`, 'send', '']
    const key = place.key === undefined ? [] : ['-k', place.key]
    await runTool(host, ['nsupdate', '-t', '10', ...key], { input: lines.join('\n'), timeoutMs: 30_000 })
  }
  return {
    kind: 'dns-01',
    async create(name, _token, answer) {
      await change('add', name, answer)
      await clock.sleep(place.delaySeconds * 1000)
    },
    remove: (name, _token, answer) => change('delete', name, answer),
  }
}
