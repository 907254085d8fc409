/**
 * Asks a guest from inside its own network: one HTTP request, or one TCP connection.
 *
 * A Node process cannot enter a network namespace, so this file is two things: the verbs, and, run as a
 * program by `nsenter … node http-probe.ts '<request>'`, what they run inside. It prints one JSON object.
 * What a guest answers is not trusted: the body has a bound, redirects are not followed, and the program
 * may open neither files nor processes (Node's own permission model).
 */
import { connect } from 'node:net'
import { fileURLToPath } from 'node:url'
import { Fault, messageOf } from '#base/fault.ts'
import type { Host } from '../host.ts'
import { inNetns, type NetworkPlace } from './netns.ts'

// By name: an ordinary import reads every export, and reading one of them loads undici, in each worker and daemon.
const { request: httpRequest } = process.getBuiltinModule('node:http')

export interface HttpGetOptions extends NetworkPlace {
  readonly host: Host
  /** `http:` only, with an address rather than a name. */
  readonly url: string
  readonly timeoutMs?: number
  /** Most of the body to keep; the rest is read by nobody. */
  readonly bodyBytes?: number
  readonly signal?: AbortSignal | undefined
}

export interface HttpAnswer {
  readonly status: number
  /** At most `bodyBytes`, as UTF-8. */
  readonly body: string
  /** From the start of the connection to the end of the answer. */
  readonly ms: number
}

export interface TcpConnectOptions extends NetworkPlace {
  readonly host: Host
  readonly address: string
  readonly port: number
  readonly timeoutMs?: number
  readonly signal?: AbortSignal | undefined
}

type Request =
  | { readonly ask: 'http'; readonly url: string; readonly timeoutMs: number; readonly bodyBytes: number }
  | { readonly ask: 'tcp'; readonly address: string; readonly port: number; readonly timeoutMs: number }

interface Answer {
  readonly status?: number
  readonly body?: string
  readonly ms?: number
  readonly error?: string
}

const TIMEOUT_MS = 5_000
const BODY_BYTES = 64 * 1024
/** Starting Node in a busy machine, on top of the request's own limit. */
const START_MS = 20_000

/**
 * One GET. Any status is an answer.
 * @throws Fault `unavailable` when nothing answers: refused, unreachable, silent, or no HTTP; `aborted`.
 */
export async function httpGet(options: HttpGetOptions): Promise<HttpAnswer> {
  const { url, timeoutMs = TIMEOUT_MS, bodyBytes = BODY_BYTES } = options
  if (!url.startsWith('http://') || !URL.canParse(url)) throw new Fault('invalid', `'${url}' is no http address`)
  const { status = 0, body = '', ms = 0 } = await probe(options, url, { ask: 'http', url, timeoutMs, bodyBytes })
  return { status, body, ms }
}

/** Opens and closes one TCP connection. @throws Fault `unavailable` when nobody accepts it; `aborted`. */
export async function tcpConnect(options: TcpConnectOptions): Promise<{ readonly ms: number }> {
  const { address, port, timeoutMs = TIMEOUT_MS } = options
  const { ms = 0 } = await probe(options, `${address} port ${port}`, { ask: 'tcp', address, port, timeoutMs })
  return { ms }
}

async function probe(
  { host, netns, signal }: Pick<HttpGetOptions, 'host' | 'netns' | 'signal'>,
  what: string,
  request: Request,
): Promise<Answer> {
  const source = fileURLToPath(new URL('../../..', import.meta.url))
  const hardened = ['--permission', '--allow-net', `--allow-fs-read=${source}`] as const
  const program = [process.execPath, ...hardened, fileURLToPath(import.meta.url), JSON.stringify(request)] as const
  const { stdout } = await host.run(inNetns(netns, program), {
    timeoutMs: request.timeoutMs + START_MS,
    signal,
    // JSON spells one byte with up to six.
    outputBytes: 6 * (request.ask === 'http' ? request.bodyBytes : 0) + BODY_BYTES,
  })
  const answer: Answer = JSON.parse(stdout)
  if (answer.error !== undefined) throw new Fault('unavailable', `${what} does not answer: ${answer.error}`)
  return answer
}

async function answerTo(request: Request): Promise<Answer> {
  const started = performance.now()
  try {
    const said = request.ask === 'http' ? await get(request) : await open(request)
    return { ...said, ms: Math.round((performance.now() - started) * 10) / 10 }
  } catch (error) {
    return { error: messageOf(error) }
  }
}

function get({ url, timeoutMs, bodyBytes }: Extract<Request, { ask: 'http' }>): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  const request = httpRequest(url, { signal: AbortSignal.timeout(timeoutMs), agent: false }, (reply) => {
    const parts: Buffer[] = []
    let size = 0
    const done = () => {
      resolve({ status: reply.statusCode ?? 0, body: Buffer.concat(parts).subarray(0, bodyBytes).toString('utf8') })
      request.destroy()
    }
    reply.on('data', (part: Buffer) => {
      parts.push(part)
      size += part.length
      if (size >= bodyBytes) done()
    })
    reply.on('end', done)
    reply.on('error', reject)
  })
  request.on('error', (error) => reject(asSilence(error, timeoutMs)))
  request.end()
  return promise
}

function open({ address, port, timeoutMs }: Extract<Request, { ask: 'tcp' }>): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  const socket = connect({ host: address, port, signal: AbortSignal.timeout(timeoutMs) }, () => {
    resolve({})
    socket.destroy()
  })
  socket.on('error', (error) => reject(asSilence(error, timeoutMs)))
  return promise
}

function asSilence(error: Error, timeoutMs: number): Error {
  return error.name === 'AbortError' ? new Error(`nothing within ${timeoutMs / 1000} s`) : error
}

if (import.meta.main) {
  const request: Request = JSON.parse(process.argv[2] ?? '')
  process.stdout.write(`${JSON.stringify(await answerTo(request))}\n`)
}
