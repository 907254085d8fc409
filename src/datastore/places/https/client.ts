/** Asks a server of datastores, over TLS: by an authority we trust, or by the print of its certificate. */
import type { ClientRequest, IncomingMessage, RequestOptions } from 'node:http'
import { Agent, request as requestHttps } from 'node:https'
import { connect, type TLSSocket } from 'node:tls'
import type { Readable } from 'node:stream'
import { Fault, type FaultKind, messageOf } from '#base/fault.ts'
import type { ServerClock } from '../server-clock.ts'

export interface HttpsOptions {
  /** `https://backup.example.org:8017/site` */
  readonly url: string
  readonly token: string
  /** PEM of the authorities the server's certificate may be signed by, in the place of the machine's. */
  readonly ca?: string | undefined
  /** SHA-256 of the server's certificate, in hexadecimal: then nobody has to have signed it. */
  readonly fingerprint?: string | undefined
  /** Silence after which the server counts as gone. */
  readonly idleMs?: number | undefined
}

export interface Asked {
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'DELETE'
  /** After the datastore's name. */
  readonly path: string
  readonly headers?: Readonly<Record<string, string | number>>
  readonly body?: Uint8Array | (() => Readable)
}

const idleMs = 60_000
const atOnce = 16
const complaintBytes = 16 * 1024
const kinds: readonly FaultKind[] = ['invalid', 'denied', 'missing', 'conflict', 'too-large', 'damaged', 'exhausted']

export class HttpsClient implements Disposable {
  readonly #url: URL
  readonly #options: HttpsOptions
  readonly #time: ServerClock
  readonly #agent: Agent

  /**
   * @param time told what time it is with every answer
   * @throws Fault `invalid`
   */
  constructor(options: HttpsOptions, time: ServerClock) {
    this.#url = placeUrl(options.url)
    this.#options = options
    this.#time = time
    this.#agent = agentFor(options)
  }

  get server(): string {
    return this.#url.origin
  }

  /** The answer, to be read or destroyed. @throws Fault for all but 2xx and 412 */
  async ask({ method, path, headers = {}, body }: Asked): Promise<IncomingMessage> {
    const { token, idleMs: silence = idleMs } = this.#options
    const name = this.#url.pathname.slice(1)
    const options: RequestOptions = {
      method,
      agent: this.#agent,
      timeout: silence,
      headers: { ...headers, Authorization: `Bearer ${token}` },
    }
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const asked = requestHttps(new URL(`/v1/${name}${path}`, this.#url), options)
      asked.once('response', resolve)
      asked.once('timeout', () => asked.destroy(new Fault('timeout', `'${this.server}' did not answer in time`)))
      asked.on('error', (cause) => reject(this.#wayFault(cause)))
      send(asked, body, reject)
    })
    this.#time.hear(Date.parse(response.headers.date ?? ''))
    const status = response.statusCode ?? 0
    if ((status >= 200 && status < 300) || status === 412) return response
    throw await this.#complaint(response, status)
  }

  /** The whole of an answer. @throws Fault `unavailable` when it was cut off */
  async gather(response: IncomingMessage, maximumBytes: number): Promise<Buffer> {
    const announced = Number(response.headers['content-length'] ?? -1)
    const parts: Buffer[] = []
    let bytes = 0
    try {
      for await (const part of response as AsyncIterable<Buffer>) {
        bytes += part.length
        if (bytes > maximumBytes) throw new Fault('too-large', `'${this.server}' sends more than ${maximumBytes} bytes`)
        parts.push(part)
      }
    } catch (cause) {
      throw cause instanceof Fault ? cause : this.#wayFault(cause)
    }
    if (announced >= 0 && bytes !== announced) throw new Fault('unavailable', `'${this.server}' cut its answer off`)
    return Buffer.concat(parts)
  }

  async #complaint(response: IncomingMessage, status: number): Promise<Fault> {
    const text = await this.gather(response, complaintBytes).catch(() => Buffer.alloc(0))
    const { kind, message } = said(text.toString('utf8'))
    if (status === 401) {
      return new Fault('denied', `'${this.server}' does not know the token`, { remedy: 'Check --token-file.' })
    }
    const known = kinds.find((one) => one === kind)
    if (known && typeof message === 'string') return new Fault(known, message.slice(0, 1_000))
    // Where only heads were asked for.
    if (status === 404) return new Fault('missing', `'${this.server}' has no such object`)
    if (status === 403) return new Fault('denied', `'${this.server}' refuses that to the token`)
    return new Fault('unavailable', `'${this.server}' answers ${status}`)
  }

  #wayFault(cause: unknown): Fault {
    if (cause instanceof Fault) return cause
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : messageOf(cause)
    if (/CERT|SELF_SIGNED|UNABLE_TO_|ERR_TLS|ERR_SSL/.test(code)) {
      return new Fault('denied', `the certificate of '${this.server}' is not trusted: ${code}`, {
        cause,
        remedy: 'Name its print with --fingerprint, or the authority that signed it with --ca-file.',
      })
    }
    return new Fault('unavailable', `could not reach '${this.server}': ${code}`, { cause })
  }

  [Symbol.dispose](): void {
    this.#agent.destroy()
  }
}

function placeUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const isPlain = url?.protocol === 'https:' && url.username === '' && url.search === '' && url.hash === ''
  if (url && isPlain && /^\/[a-z0-9][a-z0-9_-]{0,31}$/.test(url.pathname)) return url
  throw new Fault('invalid', `'${text}' is no datastore of a server`, {
    remedy: 'It is one such as https://backup.example.org:8017/site.',
  })
}

function send(asked: ClientRequest, body: Asked['body'], fail: (cause: unknown) => void): void {
  if (typeof body !== 'function') {
    asked.end(body)
    return
  }
  const stream = body()
  stream.once('error', (cause) => {
    fail(cause)
    asked.destroy()
  })
  asked.once('close', () => stream.destroy())
  stream.pipe(asked)
}

function said(text: string): { readonly kind?: unknown; readonly message?: unknown } {
  try {
    return Object(JSON.parse(text)) as { readonly kind?: unknown; readonly message?: unknown }
  } catch {
    return {}
  }
}

function agentFor({ ca, fingerprint }: HttpsOptions): Agent {
  const common = { keepAlive: true, maxSockets: atOnce, minVersion: 'TLSv1.2' } as const
  if (fingerprint === undefined) return new Agent({ ...common, ...(ca !== undefined && { ca }) })
  const wanted = fingerprint.replaceAll(':', '').toUpperCase()
  if (!/^[0-9A-F]{64}$/.test(wanted)) {
    throw new Fault('invalid', `fingerprint: '${fingerprint}' is no print of a certificate`, {
      remedy: 'It is 64 hexadecimal digits, as hako datastore serve shows them.',
    })
  }
  return new PinnedAgent(common, wanted)
}

/** Not a byte of a request is written before the certificate is the one that was named. */
class PinnedAgent extends Agent {
  readonly #wanted: string

  constructor(options: ConstructorParameters<typeof Agent>[0], wanted: string) {
    super(options)
    this.#wanted = wanted
  }

  override createConnection(
    options: RequestOptions,
    done?: (cause: Error | null, socket: TLSSocket) => void,
  ): TLSSocket | undefined {
    const { host, port, servername, timeout } = options as RequestOptions & { readonly servername?: string }
    const socket = connect({
      host: host ?? 'localhost',
      port: Number(port ?? 443),
      ...(servername !== undefined && servername !== '' && { servername }),
      minVersion: 'TLSv1.2',
      rejectUnauthorized: false,
    })
    const fail = (cause: Error): void => done?.(cause, socket)
    socket.once('error', fail)
    // The request has no socket yet, and so no silence to count.
    socket.setTimeout(Number(timeout ?? idleMs), () => {
      socket.destroy(new Fault('timeout', `'${host}' did not answer in time`))
    })
    socket.once('secureConnect', () => {
      socket.removeListener('error', fail)
      socket.setTimeout(0)
      if (String(socket.getPeerCertificate().fingerprint256).replaceAll(':', '') === this.#wanted) {
        done?.(null, socket)
        return
      }
      socket.destroy()
      done?.(new Fault('denied', `the certificate of '${host}' is another than the one that was named`), socket)
    })
    return undefined
  }
}
