/**
 * What the unprivileged front does: TLS, static files, uploads to disk; everything else goes to the daemon.
 *
 * It holds no keys but the TLS key, proves nobody's identity and may do nothing: a front that is taken over
 * can read what passes through it, and no more. An upload is first asked for, so that a stranger cannot
 * fill the disk, then taken in, then told to the daemon.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Server } from 'node:https'
import type { Duplex } from 'node:stream'
import { rm } from 'node:fs/promises'
import { type Clock, systemClock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { type Random, systemRandom } from '#base/random.ts'
import { parseForm } from '#rest/body.ts'
import { faultReply } from '#rest/reply.ts'
import { bounds } from './bounds.ts'
import { documentPaths } from './documents.ts'
import { createProxy, type Proxy } from './proxy.ts'
import { serveStatic } from './static.ts'
import { createTlsServer } from './tls-port.ts'
import { receiveUpload } from './upload.ts'
import { carryUpgrade } from './websocket.ts'
import { askForUpload, type FrontConfig, splitTarget, uploadHeader } from './wire.ts'

export interface FrontOptions extends FrontConfig {
  readonly log: Log
  readonly clock?: Clock
  readonly random?: Random
  /** The store's mark as it is now; without it no reply is kept. */
  readonly mark?: () => string
  /** Served by the daemon although they are not below `/api2`. */
  readonly documents?: readonly string[]
  readonly headersTimeoutMs?: number
}

/** The TLS server, not yet listening. */
export function createFrontServer(options: FrontOptions): Server {
  const { clock = systemClock, daemonSocket, documents = documentPaths } = options
  const proxy = createProxy(daemonSocket, clock, options.mark)
  const server = createTlsServer({
    key: options.key,
    certificate: options.certificate,
    clock,
    ...(options.headersTimeoutMs === undefined ? {} : { headersTimeoutMs: options.headersTimeoutMs }),
    onRequest: (request, response) => {
      const { path } = splitTarget(request.url ?? '/')
      if (path.startsWith('/api2/') || documents.includes(path)) {
        if (isUpload(request)) void upload(request, response, proxy, options)
        else proxy.forward(request, response)
      } else void files(request, response, path, options)
    },
  })
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    carryUpgrade(request, socket, head, { daemonSocket, clock })
  })
  server.on('close', proxy.close)
  return server
}

async function files(
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  options: FrontOptions,
): Promise<void> {
  const { clock = systemClock, log, node, staticDir } = options
  try {
    await serveStatic(request, response, path, { directory: staticDir, node, clock })
  } catch (error) {
    log.warn('static file', { path, error })
    response.destroy()
  }
}

function isUpload({ method, headers }: IncomingMessage): boolean {
  return method === 'POST' && /^multipart\/form-data\b/i.test(headers['content-type'] ?? '')
}

async function upload(
  request: IncomingMessage,
  response: ServerResponse,
  proxy: Proxy,
  options: FrontOptions,
): Promise<void> {
  const { log } = options
  try {
    const leave = await proxy.ask(request, { [uploadHeader]: askForUpload }, '')
    const reply = leave.status === 200 && !isRefusal(leave.body) ? await spooled(request, proxy, options) : leave
    await proxy.answer(request, response, reply)
  } catch (error) {
    if (!(error instanceof Fault)) log.error('bug in an upload', { error })
    const fault = error instanceof Fault ? error : new Fault('failed', 'internal error')
    if (fault.kind !== 'aborted') await proxy.answer(request, response, faultReply('json', fault))
    else response.destroy()
  }
}

/** In `extjs` a refusal has status 200 as well. */
function isRefusal(body: string): boolean {
  return /"success":0\b/.test(body)
}

async function spooled(request: IncomingMessage, proxy: Proxy, options: FrontOptions) {
  const { uploadDir, random = systemRandom } = options
  const name = `upload-${random.uuid()}`
  request.socket.setTimeout(bounds.uploadIdleMs, () => request.socket.destroy())
  const { query } = splitTarget(request.url ?? '/')
  const file = await receiveUpload(request, request.headers, { directory: uploadDir, name, query: parseForm(query) })
  request.socket.setTimeout(0)
  try {
    const headers = { [uploadHeader]: name, 'Content-Type': 'application/json' }
    return await proxy.ask(request, headers, JSON.stringify(file.fields))
  } finally {
    // The daemon has moved it away; if it is still here, the call came to nothing.
    await rm(file.path, { force: true })
  }
}
