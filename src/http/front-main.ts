/**
 * Starts the front from its configuration line: empties the spool of a predecessor, listens, says where. Further lines
 * bring another certificate.
 */
import { once } from 'node:events'
import { readdir, rm } from 'node:fs/promises'
import type { Server as PlainServer } from 'node:http'
import type { Server } from 'node:https'
import { join } from 'node:path'
import { Fault, messageOf } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { checkProperties } from '#base/schema/check.ts'
import { boolean, integer, optional, type Properties, type StaticProperties, string } from '#base/schema/schema.ts'
import { codeOf } from '#host/files.ts'
import { createFrontServer } from './front-server.ts'
import { createSpicePort } from './spice-port.ts'
import { tlsContext } from './tls-port.ts'
import { type FrontConfig, markDescriptor, type SpiceAt } from './wire.ts'

const port = integer({ minimum: 0, maximum: 65_535 })
const renewalShape = { key: string(), certificate: string() }
const configShape = {
  ...renewalShape,
  host: string(),
  port,
  spicePort: optional(port),
  daemonSocket: string(),
  uploadDir: string(),
  staticDir: optional(string()),
  node: string(),
  hasMark: optional(boolean()),
}

export interface Front {
  readonly port: number
  readonly spice?: SpiceAt
  /** New connections get the certificate of this line. @throws Fault `invalid` when it cannot be served */
  readonly renew: (line: string) => void
}

/**
 * @param readMark the mark in an open file
 * @throws Fault `invalid`, or `conflict` when the port is taken
 */
export async function startFront(line: string, log: Log, readMark: (descriptor: number) => string): Promise<Front> {
  const config = readConfig(line)
  // Whatever a predecessor was taking in, nobody waits for it any more.
  for (const name of await readdir(config.uploadDir)) await rm(join(config.uploadDir, name), { force: true })
  const hasMark = config.hasMark === true
  const server = createFrontServer({ ...config, log, ...(hasMark ? { mark: () => readMark(markDescriptor) } : {}) })
  const listening = await listen(server, config, 'HAKO_API_PORT')
  server.on('error', (error) => log.error('the front server failed', { error }))
  const spice =
    config.spicePort === undefined ? undefined : await startSpice({ ...config, port: config.spicePort }, log)
  return { port: listening, ...(spice ? { spice } : {}), renew: (renewal) => renew(server, renewal) }
}

/** A port that is taken keeps nobody from the API: it is told, and tried again when the front is started again. */
async function startSpice(place: Place & Pick<FrontConfig, 'daemonSocket'>, log: Log): Promise<SpiceAt> {
  const server = createSpicePort(place)
  try {
    const listening = await listen(server, place, 'HAKO_SPICE_PORT')
    server.on('error', (error) => log.error('the port for SPICE failed', { error }))
    return { port: listening }
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    log.warn('SPICE is not served', { fault: error.message, remedy: error.remedy })
    return { fault: error.message }
  }
}

type Place = Pick<FrontConfig, 'host' | 'port'>

async function listen(server: Server | PlainServer, place: Place, setting: string): Promise<number> {
  server.listen(place.port, place.host)
  await once(server, 'listening').catch((cause: unknown) => {
    throw portFault(place, setting, cause)
  })
  const address = server.address()
  return typeof address === 'object' && address !== null ? address.port : place.port
}

function readConfig(line: string): FrontConfig {
  const { staticDir, spicePort, hasMark = false, ...rest } = read(configShape, line)
  const more = { ...(staticDir === undefined ? {} : { staticDir }), ...(spicePort === undefined ? {} : { spicePort }) }
  return { ...rest, hasMark, ...more }
}

function read<const P extends Properties>(shape: P, line: string): StaticProperties<P> {
  const raw: unknown = JSON.parse(line)
  const checked = checkProperties(shape, typeof raw === 'object' && raw !== null ? { ...raw } : {})
  // The rules only: the values hold the key.
  if (!checked.ok)
    throw new Fault('invalid', `the front's configuration is wrong: ${Object.keys(checked.errors).join(', ')}`)
  return checked.values
}

function renew(server: Server, line: string): void {
  const renewal = read(renewalShape, line)
  try {
    server.setSecureContext(tlsContext(renewal))
  } catch (cause) {
    throw new Fault('invalid', `the front cannot serve the certificate: ${messageOf(cause)}`)
  }
}

function portFault({ host, port }: Place, setting: string, cause: unknown): Fault {
  const place = `${host}:${port}`
  switch (codeOf(cause)) {
    case 'EADDRINUSE':
      return new Fault('conflict', `port ${port} on ${host} is in use by another program`, {
        cause,
        remedy: `\`ss -ltnp 'sport = :${port}'\` names it. End it, or set ${setting}.`,
      })
    case 'EACCES':
      return new Fault('denied', `the front may not listen on ${place}`, {
        cause,
        remedy: `It runs without privileges: choose a port from 1024 on (${setting}).`,
      })
    case 'EADDRNOTAVAIL':
      return new Fault('invalid', `${host} is no address of this machine`, { cause, remedy: 'Set HAKO_API_HOST.' })
    default:
      return new Fault('failed', `cannot listen on ${place}: ${messageOf(cause)}`, { cause })
  }
}
